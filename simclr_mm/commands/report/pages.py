"""Results of many runs as a Markdown table and as one self-contained HTML page."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from simclr_mm.errors import MissingFileError
from simclr_mm.evaluation import CHECKPOINT, PRETRAINED, EvaluationRun, Result, Value, read_run
from simclr_mm.visualization.loss import plot_loss, read_log, read_scalars
from simclr_mm.visualization.page import figure_of, markdown_of, page_of, table_of

VALIDATIONS = 'Last validation of each training run'
TRAININGS = 'End of each training run, without labels'
# The loss and related numbers. A classifier has only the loss.
MEASURES = ('loss', 'chance', 'top1', 'pos_sim', 'neg_sim')
# Prefixes of the metrics in percent, including mmpretrain's.
_PERCENT = {'knn', 'probe', 'accuracy', 'mean_per_class', 'single-label', 'multi-label', 'voc07'}
_RIGHT = {'value', 'step', *MEASURES}

Row = dict[str, str]  # a cell for each column


class Found(NamedTuple):
    """What :func:`collect` found."""

    runs: list[EvaluationRun]  # evaluations, oldest first
    logs: list[Path]  # ``scalars.json`` of training runs
    broken: list[str]  # files that claim to be evaluations and cannot be read, with reasons


def collect(folders: Sequence[str | Path]) -> Found:
    """Find evaluations and training logs below folders, at any depth."""
    runs, logs, broken = {}, {}, {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise MissingFileError(f'there is no folder {folder.absolute()}: name the work dirs')
        for path in sorted(folder.rglob('*.json')):
            if path.is_dir():
                continue
            try:
                run = read_run(path)
            except (OSError, ValueError) as error:
                broken[path.resolve()] = str(error)
                continue
            if run is not None:
                runs[path.resolve()] = run
            elif path.name == 'scalars.json':
                logs[path.resolve()] = path
    ordered = sorted(runs.values(), key=lambda run: run.time)
    return Found(ordered, list(logs.values()), list(broken.values()))


def rows_of(runs: Sequence[EvaluationRun]) -> list[Row]:
    """One row for each number. Paths are shown by their last names."""
    return [_row(run, result) for run in runs for result in run.results]


def _row(run: EvaluationRun, result: Result) -> Row:
    # Features without the run's checkpoint, such as an opponent's, must not have its name.
    of_checkpoint = result.features in (PRETRAINED, CHECKPOINT)
    return dict(
        dataset=result.dataset,
        split=result.split,
        features=result.features,
        protocol=result.protocol,
        metric=result.metric,
        value=_number(result.value, result.unit),
        settings=_pairs(result.settings),
        study=_pairs(run.study),
        config=Path(run.config).stem,
        checkpoint='/'.join(run.checkpoint.split('/')[-2:]) if of_checkpoint else '',
        weights=run.checkpoint_sha256[:8] if of_checkpoint else '',
        seed='' if run.seed is None else str(run.seed),
        time=run.time,
        hardware=run.hardware,
    )


def last_validations(logs: Sequence[Path]) -> list[Row]:
    """One row for each number of a last validation.

    "epoch or step" is the unit in which the run's log counts validations.
    """
    rows = []
    for path in logs:
        # Metrics have a prefix, times have none.
        validations = [
            entry
            for entry in read_log(path)
            if 'loss' not in entry and any('/' in key for key in entry)
        ]
        for name, value in (validations[-1] if validations else {}).items():
            prefix, slash, metric = name.rpartition('/')
            if not slash or not isinstance(value, (int, float)):
                continue
            unit = '%' if prefix in _PERCENT and metric != 'support' else ''
            row = _of_log(path, 'epoch or step', validations[-1]['step'])
            rows.append(dict(row, metric=name, value=_number(value, unit)))
    return rows


def last_steps(logs: Sequence[Path]) -> list[Row]:
    """One row for each log: its last step and the measures there."""
    rows = []
    for path in logs:
        for entry in read_scalars(path)[-1:]:
            measured = {
                name: _number(entry[name], '') if name in entry else '' for name in MEASURES
            }
            rows.append(_of_log(path, 'step', entry['step']) | measured)
    return rows


def _of_log(path: Path, unit: str, step: int) -> Row:
    return {'training run': str(path.parent.parent), unit: str(step)}


def _number(value: float, unit: str) -> str:
    return f'{value:.2f} %' if unit == '%' else f'{value:.4g} {unit}'.strip()


def _pairs(settings: dict[str, Value]) -> str:
    return ', '.join(
        f'{key} {value:.4g}' if isinstance(value, (int, float)) else f'{key} {value}'
        for key, value in settings.items()
        if value != ''
    )


def _tables(found: Found) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of each table that has rows. Empty columns are left out."""
    tables = []
    for title, rows in (
        ('', rows_of(found.runs)),
        (VALIDATIONS, last_validations(found.logs)),
        (TRAININGS, last_steps(found.logs)),
    ):
        if rows:
            columns = [name for name in rows[0] if any(row[name] for row in rows)]
            tables.append((title, columns, [[row[name] for name in columns] for row in rows]))
    return tables


def markdown(found: Found) -> str:
    """Evaluations, last validations and last steps as tables in GitHub's Markdown."""
    parts = []
    for title, columns, rows in _tables(found):
        table = markdown_of(columns, rows, _RIGHT)
        parts.append(f'{title}\n\n{table}' if title else table)
    return '\n'.join(parts)


def page(found: Found) -> str:
    """The same tables and the loss curves as HTML without other files.

    A click on a column's header sorts by it.
    """
    tables = ''
    for title, columns, rows in _tables(found):
        tables += f'<h2>{title}</h2>\n' if title else ''
        tables += table_of(columns, rows, _RIGHT)
    curves = ''.join(_figure(path) for path in found.logs)
    about = '<p>A click on the header of a column sorts by it.</p>\n'
    return page_of('Evaluations', f'{about}{tables}{curves}')


def _figure(path: Path) -> str:
    """The loss curve of a log as a heading and a PNG. '' if there is none."""
    scalars = read_scalars(path)
    if not scalars:
        return ''
    name = html.escape(str(path.parent.parent))  # <run>/vis_data/scalars.json
    curve = figure_of(
        lambda figure: plot_loss(figure.subplots(), scalars),
        *(7, 3, f'training loss of {path.parent.parent}'),
    )
    return f'<h2>{name}</h2>\n{curve}'
