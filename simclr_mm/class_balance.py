"""Draw examples by class."""

from collections.abc import Callable

import numpy as np

from simclr_mm.errors import UserError


def class_balanced_subset(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Draw the same number of examples of every class, without replacement.

    Args:
        labels: (n,) class of each example.
        per_class: Examples of each class, >= 1.
        seed: Seed of the draw.

    Returns:
        (classes * per_class,) sorted rows.

    Raises:
        UserError: per_class is below 1, or a class has fewer examples.
    """
    if per_class < 1:
        raise UserError(f'per_class = {per_class}: ask for at least one image of each class.')
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < per_class:
        raise UserError(
            f'per_class = {per_class}: class {classes[counts.argmin()]} has {counts.min()} images: '
            'ask for so many of each class, or fewer.'
        )
    return draw_of_each_class(labels, lambda size: per_class, seed)


def draw_of_each_class(labels: np.ndarray, how_many: Callable[[int], int], seed: int) -> np.ndarray:
    """Sorted rows. ``how_many`` maps the size of a class to the number drawn from it."""
    if seed < 0:
        raise UserError(f'seed = {seed}: give a whole number from 0.')
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    drawn = [rng.choice(each, how_many(len(each)), replace=False) for each in members]
    return np.sort(np.concatenate(drawn))
