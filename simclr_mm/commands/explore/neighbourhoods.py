"""Nearest images, pairs that are most alike, and images far from all others.

n images, C feature width, k neighbours.
"""

from typing import NamedTuple

import numpy as np
import torch

from simclr_mm.commands.embed.retrieval import nearest_others
from simclr_mm.visualization.scatter import unit_rows


class Neighbours(NamedTuple):
    """The k nearest other images of each image, the nearest first."""

    rows: np.ndarray  # (n, k) int32
    cosines: np.ndarray  # (n, k) float32


def nearest(features: np.ndarray, k: int) -> Neighbours:
    """Nearest by cosine similarity among features (n, C), n > k, without NaN."""
    unit = torch.from_numpy(unit_rows(features))
    cosines, rows = nearest_others(unit, unit, k)
    return Neighbours(rows.int().numpy(), cosines.numpy())


def most_alike(neighbours: Neighbours, most: int) -> list[tuple[int, int, float]]:
    """The pairs of images with the largest cosines, as (row, row, cosine), the largest first."""
    first = np.repeat(np.arange(len(neighbours.rows)), neighbours.rows.shape[1])
    pairs = np.sort(np.stack([first, neighbours.rows.ravel()], axis=1), axis=1)
    _, once = np.unique(pairs, axis=0, return_index=True)
    cosines = neighbours.cosines.ravel()[once]
    best = once[np.argsort(-cosines, kind='stable')[:most]]
    return [(*pairs[i].tolist(), float(neighbours.cosines.ravel()[i])) for i in best]


def far_from_all(neighbours: Neighbours, most: int) -> list[tuple[int, float]]:
    """The images with the smallest mean cosine to their k nearest, as (row, mean cosine).

    Source: Angiulli and Pizzuti, "Fast outlier detection in high dimensional spaces", PKDD
    2002, whose weight of a point is the sum of the distances to its k nearest.
    """
    means = neighbours.cosines.mean(1)
    return [(int(row), float(means[row])) for row in np.argsort(means, kind='stable')[:most]]
