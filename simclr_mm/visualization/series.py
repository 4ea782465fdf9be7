"""One number for each of several settings: lines, or groups of bars."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from .style import COLOURS, MARKERS, picture

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
