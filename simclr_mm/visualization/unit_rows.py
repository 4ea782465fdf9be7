"""Features of length 1, checked before they are drawn."""

import numpy as np
from sklearn.preprocessing import normalize

from simclr_mm.errors import UserError

_ALIKE = 1e-5  # two features of length 1 that differ by less are told apart by rounding alone


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, (n, C); zero rows stay zero. What cannot be drawn is a UserError."""
    broken = int((~np.isfinite(features).all(axis=1)).sum())
    if broken:
        raise UserError(
            f'{broken} of {len(features)} features are not finite: look at the loss of the '
            'training, and take an earlier checkpoint'
        )
    rows = normalize(features)
    if np.ptp(rows, axis=0).max() < _ALIKE:
        raise UserError(
            f'the {len(features)} features are all alike, so there is nothing to draw: the '
            'encoder gives every image the same, or the images are all the same'
        )
    return rows
