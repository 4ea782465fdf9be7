"""Checks of the losses' arguments, and unit rows.

Letters: n images on this rank, V views, d projection width.
"""

import math
import numbers

import torch
from torch import Tensor

from simclr_mm.errors import UserError

from .gather import world_size

# A shorter row counts as zero, as in torch.nn.functional.cosine_similarity.
_ZERO = 1e-8


def check_projections(z: Tensor) -> None:
    """Refuse projections that have no contrastive loss.

    Raises:
        UserError: z is not (n, V, d) with V >= 2, or the job holds a single image.
    """
    if z.ndim != 3 or z.shape[1] < 2:
        raise UserError(
            f'z must be (n, V, d) with V >= 2 views of each image, got {tuple(z.shape)}'
        )
    if len(z) * world_size() < 2:
        raise UserError('one image has no negatives: set train_dataloader.batch_size to 2 or more')


def check_temperature(
    temperature: float | Tensor, papers: str, lowest: float = 0, key: str = 'model.head.temperature'
) -> float:
    """The temperature, a number or a tensor with one, as a number.

    Raises:
        UserError: It is not finite, not above 0, or below ``lowest``. The message names
            the config's key and says what the paper uses.
    """
    value = math.nan
    if isinstance(temperature, Tensor):
        value = temperature.item() if temperature.numel() == 1 else value
    elif isinstance(temperature, numbers.Real):
        value = float(temperature)
    if not (value > 0 and lowest <= value < math.inf):
        raise UserError(
            f'temperature must be {f">= {lowest}" if lowest else "> 0"} and finite, got '
            f'{temperature}: set {key} (the paper {papers})'
        )
    return value


def unit_rows(z: Tensor) -> tuple[Tensor, Tensor]:
    """(n, V, d) rows divided by their lengths, and these divisors, (n, V, 1).

    A row shorter than 1e-8 becomes zeros; its divisor is infinity. A zero row has cosine 0 with
    every row and the gradient 0. Without this rule its gradient would have no bound. A row whose
    length overflows becomes NaN: as zeros it would hide that the model diverged.
    """
    norms = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    norms = norms.masked_fill(norms == torch.inf, torch.nan)
    norms = norms.masked_fill(norms < _ZERO, torch.inf)
    return z / norms, norms
