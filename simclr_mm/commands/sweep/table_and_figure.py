"""The table and the figure of a sweep."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simclr_mm.commands.runs.run import Row
from simclr_mm.evaluation import Value
from simclr_mm.files.atomic import write_text
from simclr_mm.visualization.study import Series, plot_bars, plot_heat_map, plot_lines
from simclr_mm.visualization.style import plain

from .studies import Study

METRIC_LABELS = dict(knn='kNN top-1 [%]', linear='linear probe, top-1 [%]')


def write_table(path: Path, study: Study, rows: Sequence[Row]) -> None:
    """Write one line for each run as CSV: its value on each axis, metric, value and minutes."""
    columns = [axis.name for axis in study.axes] + ['metric', 'value', 'minutes']
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def draw(
    path: Path,
    study: Study,
    values: Sequence[Sequence[Value]],
    rows: Sequence[Row],
    metric: str,
    note: str,
) -> None:
    """Write the study's figure. Runs without a row are missing. The note ends the title."""
    title, label = f'{study.title}\n{plain(note)}', METRIC_LABELS[metric]
    if study.figure == 'heat map':
        names = [[str(value) for value in some] for some in values]
        labels = [axis.label for axis in study.axes] + [label]
        square = study.axes[0].values == study.axes[1].values
        table = _matrix(study, values, rows)
        plot_heat_map(str(path), table, names[0], names[1], labels, title, with_mean=square)
        return
    plot = plot_lines if study.figure == 'lines' else plot_bars
    labels = [study.axes[-1].label, label, study.axes[0].label]
    plot(str(path), _series(study, rows), values[-1], labels, title)


def _matrix(study: Study, values: Sequence[Sequence[Value]], rows: Sequence[Row]) -> np.ndarray:
    """(first axis, last axis), NaN for a missing row."""
    table = np.full([len(values[0]), len(values[-1])], np.nan)
    for row in rows:
        place = [some.index(row[a.name]) for some, a in zip(values, study.axes)]
        table[tuple(place)] = row['value']
    return table


def _series(study: Study, rows: Sequence[Row]) -> Series:
    """Numbers by the first axis, then by the last. One series if there is one axis."""
    by_name: Series = {}
    for row in rows:
        first = str(row[study.axes[0].name]) if len(study.axes) > 1 else ''
        # '' is a run without a value on the last axis, such as one without a head.
        place = row[study.axes[-1].name]
        by_name.setdefault(first, {})[None if place == '' else place] = float(row['value'])
    return by_name
