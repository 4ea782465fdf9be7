"""A table of numbers as a heat map, with the numbers in its cells."""

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle

from .style import COLOURS, picture


def plot_heat_map(
    path: str,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    labels: Sequence[str],
    title: str,
    with_mean: bool = False,
) -> None:
    """Write a heat map with a frame around the highest number.

    Args:
        values: (rows, columns), at least one of them finite; NaN: an empty cell.
        labels: Of the rows, of the columns and, with its unit, of the numbers.
        title: Title of the picture.
        with_mean: Add a column with the mean of each row, as in the paper's Fig. 5.
    """
    highest = np.unravel_index(np.nanargmax(values), values.shape)
    columns = list(columns)
    if with_mean:
        masked = np.ma.masked_invalid(values)
        values = np.column_stack([values, masked.mean(axis=1).filled(np.nan)])
        columns.append('mean')
    cell = max(0.85, 0.1 * max(map(len, columns)))  # inches
    size = 3.4 + cell * len(columns), 1.8 + 0.6 * len(rows)
    with picture(path, *size, title) as figure:
        axes = figure.subplots()
        image = axes.imshow(values, cmap='cividis', aspect='auto')
        figure.colorbar(image, label=labels[2])
        middle = np.mean(image.get_clim())
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set(ylabel=labels[0], xlabel=labels[1])
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = 'white' if float(value) <= middle else 'black'
                axes.text(column, row, f'{value:.1f}', ha='center', va='center', color=colour)
        if with_mean:
            axes.axvline(len(columns) - 1.5, color='white', linewidth=5)
        corner = highest[1] - 0.46, highest[0] - 0.46
        axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=COLOURS[5], lw=3))
