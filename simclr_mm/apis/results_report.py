"""Results of many runs as a Markdown table and as one self-contained HTML page."""
import base64
import html
import io
import json
from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple, Union

from simclr_mm.evaluation import EvaluationRun, read_run
from simclr_mm.visualization.style import COLOURS, new_figure, style

COLUMNS = ('dataset', 'split', 'features', 'protocol', 'metric', 'value', 'settings',
           'checkpoint', 'weights', 'time', 'hardware')

_SCRIPT = """
for (const head of document.querySelectorAll('th')) head.onclick = () => {
  const body = head.closest('table').tBodies[0], column = head.cellIndex;
  const up = head.dataset.up = head.dataset.up === '1' ? '0' : '1';
  const text = row => row.cells[column].textContent;
  const order = (a, b) => text(a).localeCompare(text(b), 'en', {numeric: true});
  const rows = [...body.rows].sort((a, b) => up === '1' ? order(a, b) : order(b, a));
  body.append(...rows);
};
"""
_LOOK = """
body { font: 15px sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; } th { cursor: pointer; background: #eee; }
th, td { padding: .3em .7em; border: 1px solid #ccc; text-align: left; }
td.value { text-align: right; font-variant-numeric: tabular-nums; }
"""


class Found(NamedTuple):
    """What :func:`collect` found.

    Args:
        runs: Evaluations, oldest first.
        logs: ``scalars.json`` of training runs.
        broken: Files that say they are evaluations and cannot be read, and why.
    """
    runs: List[EvaluationRun]
    logs: List[Path]
    broken: List[str]


def collect(folders: Sequence[Union[str, Path]]) -> Found:
    """Find evaluations and training logs below folders, at any depth.

    Raises:
        FileNotFoundError: A folder does not exist.
    """
    runs, logs, broken = {}, {}, {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f'there is no folder {folder.absolute()}')
        for path in sorted(folder.rglob('*.json')):
            try:
                run = read_run(path)
            except ValueError as error:
                broken[path.resolve()] = str(error)
                continue
            if run is not None:
                runs[path.resolve()] = run
            elif path.name == 'scalars.json':
                logs[path.resolve()] = path
    ordered = sorted(runs.values(), key=lambda run: run.time)
    return Found(ordered, list(logs.values()), list(broken.values()))


def rows_of(runs: Sequence[EvaluationRun]) -> List[Tuple[str, ...]]:
    """One row of :data:`COLUMNS` for each number."""
    rows = []
    for run in runs:
        for result in run.results:
            settings = ', '.join(f'{key} {value:.4g}'
                                 for key, value in result.settings.items())
            rows.append((result.dataset, result.split, result.features, result.protocol,
                         result.metric, f'{result.value:.2f}', settings, run.checkpoint,
                         run.checkpoint_sha256[:8], run.time, run.hardware))
    return rows


def markdown(runs: Sequence[EvaluationRun]) -> str:
    """The rows as a table in GitHub's Markdown."""
    lines = [COLUMNS, ['--:' if name == 'value' else ':--' for name in COLUMNS]]
    for row in rows_of(runs):
        lines.append([cell.replace('|', '\\|').replace('\n', ' ') for cell in row])
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def page(found: Found) -> str:
    """The rows and the loss curves as HTML that needs no other file.

    A click on a column's head sorts by it.
    """
    head = ''.join(f'<th>{name}</th>' for name in COLUMNS)
    body = ''.join(f'<tr>{_cells(row)}</tr>\n' for row in rows_of(found.runs))
    curves = ''.join(_figure(path) for path in found.logs)
    return (f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8">'
            f'<title>Evaluations</title><style>{_LOOK}</style>\n<h1>Evaluations</h1>'
            '<p>Accuracies in percent. Click on a column to sort.</p>\n'
            f'<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n'
            f'{curves}<script>{_SCRIPT}</script></html>\n')


def _cells(row: Sequence[str]) -> str:
    return ''.join(f'<td class="value">{html.escape(cell)}</td>' if name ==
                   'value' else f'<td>{html.escape(cell)}</td>'
                   for name, cell in zip(COLUMNS, row))


def _figure(path: Path) -> str:
    """The loss curve of a log as a heading and a PNG, nothing where there is none."""
    steps, losses = read_losses(path)
    if not steps:
        return ''
    png = base64.b64encode(_loss_png(steps, losses)).decode()
    name = html.escape(str(path.parent.parent))  # <run>/vis_data/scalars.json
    return (f'<h2>{name}</h2><img alt="training loss of {name}" '
            f'src="data:image/png;base64,{png}">\n')


def read_losses(path: Path) -> Tuple[List[int], List[float]]:
    """Steps and losses of a ``scalars.json``; a last line cut short is left out."""
    steps, losses = [], []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the run was killed while it wrote
            continue
        if isinstance(entry, dict) and 'loss' in entry and 'step' in entry:
            steps.append(entry['step'])
            losses.append(entry['loss'])
    return steps, losses


def _loss_png(steps: List[int], losses: List[float]) -> bytes:
    with style():
        figure = new_figure(7, 3)
        axes = figure.subplots()
        axes.plot(steps, losses, color=COLOURS[0])
        axes.set(xlabel='iteration', ylabel='training loss [nats]')
        target = io.BytesIO()
        figure.savefig(target, format='png', dpi=90)
    return target.getvalue()
