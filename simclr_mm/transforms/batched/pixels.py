"""Helpers of the batched operations: parameters on the device, whole grey levels.

n images, S side in pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Added before the fraction is cut off, so that float32 errors do not lower a whole number.
# As in transforms/color.py.
FLOOR = 1e-3


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """Numbers from the host as float32 on the images' device, (..., n) -> (..., n, 1, 1, 1)."""
    values = values.to(torch.float32)[..., None, None, None]
    return values.to(images.device, non_blocking=True)


def on_rows(images: Tensor, rows: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A new tensor of the images, with ``function`` applied to the (m,) rows."""
    if len(rows) == len(images):
        return function(images)
    rows = rows.to(images.device, non_blocking=True)
    return images.index_copy(0, rows, function(images.index_select(0, rows)))


def to_levels(images: Tensor, add: float, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Float images as uint8: add, clip to [0, 255], cut the fraction off. Writes to ``images``.

    Adding ``FLOOR`` rounds down as in PIL; adding 0.5 rounds to the nearest. With the dtype
    float32 images stay as they are.
    """
    if dtype != torch.uint8:
        return images
    if add:
        images.add_(add)
    return images.clamp_(0, 255).to(torch.uint8)
