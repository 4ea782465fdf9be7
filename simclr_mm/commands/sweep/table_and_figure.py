"""The rows of a sweep as a table and as a figure."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simclr_mm.commands.runs.run import Row
from simclr_mm.evaluation import Value
from simclr_mm.files.atomic import atomic_file
from simclr_mm.visualization.heat_map import plot_heat_map
from simclr_mm.visualization.series import Series, plot_bars, plot_lines
from simclr_mm.visualization.style import plain

from .studies import Study

METRIC_LABELS = dict(knn='kNN top-1 [%]', linear='linear probe, top-1 [%]')


def write_table(path: Path, study: Study, rows: Sequence[Row]) -> None:
    """Write one line a run as CSV: its place on each axis, value and minutes."""
    columns = [axis.name for axis in study.axes] + ['metric', 'value', 'minutes']
    text = io.StringIO()
    table = csv.DictWriter(text, columns, extrasaction='ignore', lineterminator='\n')
    table.writeheader()
    table.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def draw(
    path: Path,
    study: Study,
    values: Sequence[Sequence[Value]],
    rows: Sequence[Row],
    metric: str,
    note: str,
) -> None:
    """Write the study's figure; what has no row yet is missing in it.

    Args:
        path: The file to write.
        study: Says which figure it is.
        values: Those of each axis, in the order of the figure.
        rows: At least one.
        metric: 'knn' or 'linear'.
        note: Second line of the title.
    """
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
    """(first axis, last axis), NaN where there is no row."""
    table = np.full([len(values[0]), len(values[-1])], np.nan)
    for row in rows:
        place = [some.index(row[a.name]) for some, a in zip(values, study.axes)]
        table[tuple(place)] = row['value']
    return table


def _series(study: Study, rows: Sequence[Row]) -> Series:
    """By the first axis, then by the last; one series where there is one axis."""
    by_name: Series = {}
    for row in rows:
        first = str(row[study.axes[0].name]) if len(study.axes) > 1 else ''
        # A run that has no value on the last axis, such as one without a head.
        place = row[study.axes[-1].name]
        by_name.setdefault(first, {})[None if place == '' else place] = float(row['value'])
    return by_name
