"""Drawn parameters as numbers, and the batch that they make.

A worker that leaves the augmentation to the device draws as ever, in the same order
from the same generator, and sends one row of numbers for each step of a view: the code
of the transform, 0 where it was not to be applied, and its parameters.

n images, S side in pixels, T steps of a pipeline.
"""
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .blur import gaussian_blur
from .color import NOTHING, color_jitter, grayscale
from .geometric import cutout, gaussian_noise, rotate, sobel
from .pixels import on_rows

_JITTER = ('brightness', 'contrast', 'saturation', 'hue')
STEP_WIDTH = 1 + 2 * len(_JITTER)

# Transform by name: its function and its parameters in the order of their columns.
# ColorJitter's order takes the four columns after its factors.
_OPERATIONS: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    'ColorJitter': (color_jitter, _JITTER),
    'RandomGrayscale': (grayscale, ()),
    'RandomGaussianBlur': (gaussian_blur, ('sigma', 'kernel')),
    'RandomRotation': (rotate, ('degrees', )),
    'RandomCutout': (cutout, ('top', 'left', 'side')),
    'RandomSobel': (sobel, ()),
    'RandomGaussianNoise': (gaussian_noise, ('std', 'seed'))
}
_CODES = {name: code for code, name in enumerate(_OPERATIONS, start=1)}


def encode_step(name: str, params: dict | None) -> np.ndarray:
    """One step of one view as numbers.

    Args:
        name: Class name of the transform.
        params: What it drew, as in ``view_params``; None: not applied.

    Returns:
        (STEP_WIDTH,) float64, exact for whole numbers below 2^53.
    """
    row = np.zeros(STEP_WIDTH)
    if params is None:
        return row
    _, columns = _OPERATIONS[name]
    row[0] = _CODES[name]
    row[1:1 + len(columns)] = [params[column] for column in columns]
    if name == 'ColorJitter':
        row[5:] = [_jitter_operation(*drawn) for drawn in params.items()]
    return row


def _jitter_operation(name: str, factor: float) -> int:
    # Only a range of zero width, which switches an operation off, gives exactly this.
    unchanged = factor == (0 if name == 'hue' else 1)
    return NOTHING if unchanged else _JITTER.index(name)


def augment(images: Tensor, steps: Tensor) -> Tensor:
    """Apply to every image the steps that were drawn for it.

    Args:
        images: (n, 3, S, S) uint8 RGB, on any device.
        steps: (n, T, STEP_WIDTH) rows of :func:`encode_step`, on the host.

    Returns:
        (n, 3, S, S) uint8 RGB.
    """
    for step in steps.unbind(1):  # (n, STEP_WIDTH), T times
        for name, code in _CODES.items():
            chosen = step[:, 0] == code
            if not chosen.any():
                continue
            if name == 'ColorJitter':
                images = _jitter(images, step, chosen)
            else:
                rows = chosen.nonzero()[:, 0]
                images = on_rows(images, rows, _operation(name, step[rows]))
    return images


def _jitter(images: Tensor, step: Tensor, chosen: Tensor) -> Tensor:
    # Images left out take part with no operation: cheaper than a copy of the others.
    order = torch.where(chosen[:, None], step[:, 5:].long(), NOTHING)  # (n, 4)
    return color_jitter(images, step[:, 1:5], order)


def _operation(name: str, step: Tensor) -> Callable[[Tensor], Tensor]:
    function, columns = _OPERATIONS[name]
    params = step[:, 1:1 + len(columns)].unbind(1)
    return lambda images: function(images, *params)
