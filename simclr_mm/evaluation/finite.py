"""Handle rows of features that are not finite, such as those of unreadable images."""

import logging

from mmengine.logging import print_log
from torch import Tensor

from simclr_mm.errors import UserError, listed


def finite_rows(features: Tensor, what: str) -> Tensor:
    """Which rows of (n, ...) are finite, (n) booleans. A log line counts and names the others.

    Raises:
        UserError: No row is finite.
    """
    finite = features.flatten(1).isfinite().all(dim=1)
    if not finite.all():
        message = _message(finite, what)
        if not finite.any():
            raise UserError(f'{message}; no row is left.')
        print_log(f'{message}; they are left out.', logger='current', level=logging.WARNING)
    return finite


def check_finite(features: Tensor, what: str) -> None:
    """Refuse rows that are not finite, and name their numbers."""
    finite = features.flatten(1).isfinite().all(dim=1)
    if not finite.all():
        raise UserError(f'{_message(finite, what)}; leave them out.')


def _message(finite: Tensor, what: str) -> str:
    rows = (~finite).nonzero().flatten().tolist()
    named = f'{len(rows)} of {len(finite)} {what} are not finite (NaN or infinity)'
    return f'{named}: rows {listed(rows)}'
