"""Histograms of crops, without and with colour distortion side by side."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from .style import COLOURS, picture

HIGHEST = 25  # percent; dark or bright crops can have half of their values in one bin


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
    with picture(path, 11, 1.4 + 2.6 * len(histograms), title) as figure:
        grid = figure.subplots(len(histograms), 2, sharex=True, sharey=True, squeeze=False)
        for row, name in enumerate(images):
            for column, kind in enumerate(kinds):
                axes = grid[row, column]
                _plot_crops(axes, histograms[row, column])
                axes.set_title(
                    f'{name}, {kind}: two crops share {100 * overlaps[row, column]:.0f} %'
                )
            grid[row, 0].set_ylabel('share of values [%]')
        if 100 * histograms.max() > HIGHEST:
            grid[0, 0].set_ylim(0, HIGHEST)
            figure.supxlabel(f'Bins above {HIGHEST} % are cut off.', fontsize=10)
        for axes in grid[-1]:
            axes.set_xlabel('intensity, all channels [0, 255]')


def _plot_crops(axes: Axes, histograms: np.ndarray) -> None:
    edges = np.linspace(0, 256, histograms.shape[1] + 1)
    for crop, shares in enumerate(histograms):
        axes.stairs(100 * shares, edges, color=COLOURS[crop % len(COLOURS)], lw=1.6)
    axes.set_xlim(0, 256)
    axes.grid(alpha=0.3)
