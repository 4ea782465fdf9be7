"""Results of many runs as a Markdown table and as one self-contained HTML page."""
import base64
import html
import io
from itertools import compress
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple, Union

from simclr_mm.evaluation import PIXELS, UNTRAINED, EvaluationRun, Result, read_run
from simclr_mm.evaluation.result import Value
from simclr_mm.visualization.loss import plot_loss, read_scalars
from simclr_mm.visualization.style import new_figure, style

COLUMNS = ('dataset', 'split', 'features', 'protocol', 'metric', 'value', 'settings',
           'study', 'config', 'checkpoint', 'weights', 'seed', 'time', 'hardware')

_SCRIPT = """
for (const head of document.querySelectorAll('th')) head.onclick = () => {
  const body = head.closest('table').tBodies[0], column = head.cellIndex;
  const up = head.dataset.up = head.dataset.up === '1' ? '0' : '1';
  const text = row => row.cells[column].textContent;
  const order = column === VALUE
    ? (a, b) => parseFloat(text(a)) - parseFloat(text(b))
    : (a, b) => text(a).localeCompare(text(b), 'en', {numeric: true});
  const rows = [...body.rows].sort((a, b) => up === '1' ? order(a, b) : order(b, a));
  body.append(...rows);
};
"""
_LOOK = """
body { font: 15px sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; } th { cursor: pointer; background: #eee; }
th, td { padding: .3em .7em; border: 1px solid #ccc; text-align: left; }
td.value { text-align: right; font-variant-numeric: tabular-nums; }
td.value, td.time { white-space: nowrap; }
img { display: block; max-width: 100%; }
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
    """One row of :data:`COLUMNS` for each number.

    Of a config and a checkpoint only the name and, of the latter, its folder.
    """
    return [_row(run, result) for run in runs for result in run.results]


def _row(run: EvaluationRun, result: Result) -> Tuple[str, ...]:
    # Features that owe nothing to the run's checkpoint are not to bear its name.
    weights = '', ''
    if result.features not in (UNTRAINED, PIXELS):
        weights = '/'.join(run.checkpoint.split('/')[-2:]), run.checkpoint_sha256[:8]
    number = f'{result.value:.2f}' if result.unit == '%' else f'{result.value:.4g}'
    seed = '' if run.seed is None else str(run.seed)
    return (result.dataset, result.split, result.features, result.protocol,
            result.metric, f'{number} {result.unit}'.strip(), _pairs(result.settings),
            _pairs(run.study), Path(run.config).stem, *weights, seed, run.time,
            run.hardware)


def _pairs(settings: Dict[str, Value]) -> str:
    return ', '.join(
        f'{key} {value:.4g}' if isinstance(value, (int, float)) else f'{key} {value}'
        for key, value in settings.items() if value != '')


def _table(runs: Sequence[EvaluationRun]) -> List[Tuple[str, ...]]:
    """A head and the rows, without columns that are empty in all of them."""
    rows = rows_of(runs)
    kept = [any(cells) for cells in zip(*rows)]
    return [tuple(compress(row, kept)) for row in (COLUMNS, *rows)]


def markdown(runs: Sequence[EvaluationRun]) -> str:
    """The rows as a table in GitHub's Markdown."""
    head, *rows = _table(runs)
    lines = [head, ['--:' if name == 'value' else ':--' for name in head]]
    for row in rows:
        lines.append([cell.replace('|', '\\|').replace('\n', ' ') for cell in row])
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def page(found: Found) -> str:
    """The rows and the loss curves as HTML that needs no other file.

    A click on a column's head sorts by it.
    """
    names, *rows = _table(found.runs)
    head = ''.join(f'<th>{name}</th>' for name in names)
    body = ''.join(f'<tr>{_cells(names, row)}</tr>\n' for row in rows)
    curves = ''.join(_figure(path) for path in found.logs)
    script = _SCRIPT.replace('VALUE', str(names.index('value')))
    return (f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8">'
            f'<title>Evaluations</title><style>{_LOOK}</style>\n<h1>Evaluations</h1>'
            '<p>A click on the head of a column sorts by it.</p>\n'
            f'<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n'
            f'{curves}<script>{script}</script></html>\n')


def _cells(names: Sequence[str], row: Sequence[str]) -> str:
    return ''.join(f'<td class="{name}">{html.escape(cell)}</td>'
                   for name, cell in zip(names, row))


def _figure(path: Path) -> str:
    """The loss curve of a log as a heading and a PNG, nothing where there is none."""
    scalars = read_scalars(path)
    if not scalars:
        return ''
    png = base64.b64encode(_loss_png(scalars)).decode()
    name = html.escape(str(path.parent.parent))  # <run>/vis_data/scalars.json
    return (f'<h2>{name}</h2><img alt="training loss of {name}" '
            f'src="data:image/png;base64,{png}">\n')


def _loss_png(scalars: List[dict]) -> bytes:
    with style():
        figure = new_figure(7, 3)
        plot_loss(figure.subplots(), scalars)
        target = io.BytesIO()
        figure.savefig(target, format='png', dpi=90)
    return target.getvalue()
