"""Check features and scale them to length 1 before they are drawn."""

import numpy as np
from sklearn.preprocessing import normalize

from simclr_mm.errors import UserError

_ALIKE = 1e-5  # features of length 1 with smaller differences differ only by rounding


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, (n, C). Zero rows stay zero. Rows that cannot be drawn are a UserError."""
    broken = int((~np.isfinite(features).all(axis=1)).sum())
    if broken:
        raise UserError(
            f'{broken} of {len(features)} features are not finite: check the training loss, '
            'and take an earlier checkpoint'
        )
    rows = normalize(features)
    if np.ptp(rows, axis=0).max() < _ALIKE:
        raise UserError(
            f'the {len(features)} features are all alike, so there is nothing to draw: the '
            'encoder has collapsed, or all images are the same'
        )
    return rows
