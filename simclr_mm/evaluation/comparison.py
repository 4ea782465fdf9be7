"""How sure a difference between two classifiers is, over test images and draws of labels.

R draws of labels, m test images. A cell is one protocol with one number of labels.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

Cell = tuple[str, int]  # protocol, and the number of labels of each draw
Table = np.ndarray  # (R, m) numbers; R is 1 where all labels are used


class Estimate(NamedTuple):
    """A mean with its uncertainty. Variances are those of the mean."""

    mean: float
    image_variance: float  # because the test images are a sample
    draw_variance: float  # because the labels are a sample
    images: int  # m
    draws: int  # R, 1 where the draws are not known to vary

    def interval(self, confidence: float) -> tuple[float, float]:
        """The ends of Student's t interval, with Satterthwaite's degrees of freedom.

        Source: Satterthwaite, An approximate distribution of estimates of variance components,
            Biometrics Bulletin 2(6), 1946.
        """
        total = self.image_variance + self.draw_variance
        squares = self.image_variance**2 / (self.images - 1)
        if self.draws > 1:
            squares += self.draw_variance**2 / (self.draws - 1)
        half = total**0.5 * student.ppf((1 + confidence) / 2, total**2 / squares)
        return self.mean - half, self.mean + half


def estimate(tables: Mapping[Cell, Table], total: int, cells: Sequence[Cell]) -> Estimate:
    """The mean of some cells, with its variance over test images and over label sets.

    A table holds what each test image gives after each draw: 1 or 0 for a hit or miss, or the
    difference of two classifiers' hits. Draws and images are crossed random effects, as readers
    and cases are in a study of diagnostic images. Their mean squares over the size of the table
    are the variances (Hillis, Statistics in Medicine 26(3), 2007, Sec. 2), here without the
    mean square of the interaction subtracted: the variance is a little too large, but never
    estimated as zero from a few draws.

    Draws of a share f of one set of labels overlap, so they vary less than sets of new
    labels would: their variance is multiplied by 1/R + f / (1 - f). The second term is the
    delete-d jackknife (Shao and Wu, Annals of Statistics 17(3), 1989). For f = 1, where
    there is one draw, it is the term of the next largest number of labels. The
    shares of one set are taken as fully correlated, which is careful.

    The variance over images is at least that of one image more for and one more against
    (half each), as of Agresti and Min, Statistics in Medicine 24(5), 2005. Otherwise a few
    images without a difference would seem certain.

    Args:
        tables: All cells, because the one with all labels needs another.
        total: Number of labels that the draws are taken from.
        cells: The cells of the mean, all of the same m >= 2 images.

    Returns:
        The estimate. Without two draws of a smaller share the labels count as given.
    """
    most = max(len(tables[cell]) for cell in cells)
    images = tables[cells[0]].shape[1]
    averaged = np.mean([np.broadcast_to(tables[cell], (most, images)) for cell in cells], axis=0)
    of_draw, of_image = _mean_squares(averaged)
    image_variance = of_image / averaged.size + 1 / images**2
    pool = np.mean([_pool_variance(tables, total, cell) ** 0.5 for cell in cells]) ** 2
    draw_variance = of_draw / averaged.size + pool
    draws = max(len(table) for table in tables.values()) if draw_variance else 1
    return Estimate(float(averaged.mean()), image_variance, float(draw_variance), images, draws)


def _pool_variance(tables: Mapping[Cell, Table], total: int, cell: Cell) -> float:
    """The variance of a cell's mean that more draws from the same labels do not lower."""
    protocol, labels = cell
    drawn = [n for name, n in tables if name == protocol and n < total and len(tables[name, n]) > 1]
    if labels not in drawn:
        if not drawn:
            return 0.0
        labels = max(drawn)
    table = tables[protocol, labels]
    return _mean_squares(table)[0] / table.shape[1] * labels / (total - labels)


def _mean_squares(table: Table) -> tuple[float, float]:
    """Mean squares of draws, 0 for one draw, and of images."""
    draws, images = table.shape
    of_draw = images * table.mean(axis=1).var(ddof=1) if draws > 1 else 0.0
    return of_draw, draws * table.mean(axis=0).var(ddof=1)
