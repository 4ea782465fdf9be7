"""Figures of studies: lines, groups of bars, a heat map, and histograms of crops."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from .style import COLOURS, MARKERS, picture

HIGHEST = 25  # percent; dark or bright crops can have half of their values in one bin

Place = int | float | str | None
# Name of a line or of a colour of bars, and its numbers by place on x. The place None
# stands for a number without a place.
Series = dict[str, dict[Place, float]]


def plot_lines(
    path: str, series: Series, places: Sequence[Place], labels: Sequence[str], title: str
) -> None:
    """Write a line for each series, over equally spaced places.

    ``labels`` are those of x, of the numbers with their unit, and of the legend. Numbers may
    be missing at places.
    """
    with picture(path, 7.5, 4.8, title) as figure:
        axes = figure.subplots()
        for k, (name, numbers) in enumerate(series.items()):
            there = [k for k, place in enumerate(places) if place in numbers]
            axes.plot(
                there,
                [numbers[places[k]] for k in there],
                color=COLOURS[k % len(COLOURS)],
                marker=MARKERS[k % len(MARKERS)],
                label=name,
            )
        _finish(axes, places, labels, len(series))


def plot_bars(
    path: str, series: Series, places: Sequence[Place], labels: Sequence[str], title: str
) -> None:
    """Write groups of bars, a colour for each series. The bars do not start at zero.

    The arguments are those of :func:`plot_lines`. A number at None is a dashed line.
    """
    count = sum(None not in numbers for numbers in series.values())
    with picture(path, max(7.5, 2 + 0.3 * len(places) * (count + 1)), 4.8, title) as figure:
        axes = figure.subplots()
        colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(series)}
        for name, numbers in series.items():
            if None in numbers:
                label = f'{name} ({numbers[None]:.1f})'
                axes.axhline(numbers[None], color=colours[name], linestyle='--', label=label)
        bars = {name: row for name, row in series.items() if None not in row}
        _draw_bars(axes, bars, places, colours)
        every = [value for row in series.values() for value in row.values()]
        margin = max(1.0, 0.25 * (max(every) - min(every)))
        lowest = max(0, min(every) - margin)
        axes.set_ylim(lowest, max(every) + margin)
        axes.set_xlim(-0.6, len(places) - 0.4)
        _finish(axes, places, labels, len(series) + len(axes.get_lines()))
        if lowest > 0:
            axes.set_ylabel(f'{labels[1]}, from {lowest:.0f} on')


def _draw_bars(axes: Axes, bars: Series, places: Sequence[Place], colours: dict[str, str]) -> None:
    """Draw the bars of a place side by side, without gaps for missing numbers."""
    width = 0.8 / max(len(bars), 1)
    for name, numbers in bars.items():
        middles = []
        for x, place in enumerate(places):
            present = [each for each in bars if place in bars[each]]
            if name in present:
                middles.append(x + (present.index(name) - (len(present) - 1) / 2) * width)
        heights = [numbers[place] for place in places if place in numbers]
        bar = axes.bar(middles, heights, 0.92 * width, color=colours[name], label=name)
        # On white, because a dashed line may run there.
        white = dict(facecolor='white', edgecolor='none', pad=0.3)
        axes.bar_label(bar, fmt='%.1f', fontsize=8, padding=2, bbox=white)


def _finish(axes: Axes, places: Sequence[Place], labels: Sequence[str], count: int) -> None:
    axes.set_xticks(np.arange(len(places)), [str(place) for place in places])
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.grid(axis='y', alpha=0.3)
    axes.set_axisbelow(True)
    if count > 1:
        axes.legend(title=labels[2], loc='upper left', bbox_to_anchor=(1, 1))


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


def plot_crop_histograms(
    path: str,
    histograms: np.ndarray,
    overlaps: np.ndarray,
    images: Sequence[str],
    kinds: Sequence[str],
    title: str,
) -> None:
    """Write a row for each image and a line for each crop, with the same axes everywhere.

    ``histograms``, (I, 2, K, B), are shares of the values of I images and K crops, in B bins of
    [0, 256), without and with distortion. ``overlaps``, (I, 2), are the means of those of an
    image's crops, in [0, 1].
    """
    edges = np.linspace(0, 256, histograms.shape[3] + 1)
    with picture(path, 11, 1.4 + 2.6 * len(histograms), title) as figure:
        grid = figure.subplots(len(histograms), 2, sharex=True, sharey=True, squeeze=False)
        for row, name in enumerate(images):
            for column, kind in enumerate(kinds):
                axes = grid[row, column]
                for crop, shares in enumerate(histograms[row, column]):
                    colour = COLOURS[crop % len(COLOURS)]
                    axes.stairs(100 * shares, edges, color=colour, lw=1.6)
                axes.set_xlim(0, 256)
                axes.grid(alpha=0.3)
                axes.set_title(
                    f'{name}, {kind}: two crops share {100 * overlaps[row, column]:.0f} %'
                )
            grid[row, 0].set_ylabel('share of values [%]')
        if 100 * histograms.max() > HIGHEST:
            grid[0, 0].set_ylim(0, HIGHEST)
            figure.supxlabel(f'Bins above {HIGHEST} % are cut off.', fontsize=10)
        for axes in grid[-1]:
            axes.set_xlabel('intensity, all channels [0, 255]')
