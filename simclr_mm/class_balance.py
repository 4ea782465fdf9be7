"""A draw of as many examples of every class."""

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
    rng = np.random.default_rng(seed)
    rows = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < per_class:
            raise UserError(
                f'class {label} has {len(members)} images, {per_class} of '
                'each class were asked for: ask for fewer.'
            )
        rows.append(rng.choice(members, per_class, replace=False))
    return np.sort(np.concatenate(rows))
