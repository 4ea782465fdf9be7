"""Drawn parameters as numbers, and the batch that they make.

A worker that leaves the augmentation to the device draws as ever, from the same
streams, and sends one row of numbers for each step of a view: the code of the
transform, 0 where it was not to be applied, and its parameters.

n images, S side in pixels, T steps of a pipeline.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .blur import gaussian_blur
from .color import NOTHING, color_jitter, grayscale
from .crop import crop_and_flip
from .geometric import cutout, gaussian_noise, rotate, sobel
from .pixels import on_rows

_JITTER = ('brightness', 'contrast', 'saturation', 'hue')
# Only a range of zero width, which switches an operation off, gives exactly these.
_UNCHANGED = (1, 1, 1, 0)
STEP_WIDTH = 1 + 2 * len(_JITTER)

# Transform by name: its function and its parameters in the order of their columns.
# ColorJitter's order takes the four columns after its factors.
_OPERATIONS: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    'ColorJitter': (color_jitter, _JITTER),
    'RandomGrayscale': (grayscale, ()),
    'RandomGaussianBlur': (gaussian_blur, ('sigma', 'kernel')),
    'RandomRotation': (rotate, ('degrees',)),
    'RandomCutout': (cutout, ('top', 'left', 'side')),
    'RandomSobel': (sobel, ()),
    'RandomGaussianNoise': (gaussian_noise, ('std', 'seed')),
    'RandomCropAndFlip': (crop_and_flip, ('top', 'left', 'height', 'width', 'flip')),
}
_WHOLE = {'kernel', 'top', 'left', 'side', 'seed', 'height', 'width', 'flip'}
_NAMES = list(_OPERATIONS)
_CODES = {name: code for code, name in enumerate(_NAMES, start=1)}


def encode_step(name: str, params: dict | None) -> list[float]:
    """One step of one view as numbers.

    Args:
        name: Class name of the transform.
        params: What it drew, as in ``view_params``; None: not applied.

    Returns:
        STEP_WIDTH numbers, exact for whole ones below 2^53.
    """
    if params is None:
        return [0] * STEP_WIDTH
    _, columns = _OPERATIONS[name]
    row = [_CODES[name], *(params[column] for column in columns)]
    if name == 'ColorJitter':
        row += [_jitter_operation(*drawn) for drawn in params.items()]
    return row + [0] * (STEP_WIDTH - len(row))


def encode_batch(name: str, applied: np.ndarray, params: dict) -> np.ndarray:
    """One step of n images as numbers, rows of :func:`encode_step`.

    Args:
        name: Class name of the transform.
        applied: (n,) bool.
        params: What was drawn for all, as ``draw_batch`` gives it.

    Returns:
        (n, STEP_WIDTH) float64, rows of zeros where not applied.
    """
    rows = np.zeros((len(applied), STEP_WIDTH))
    rows[:, 0] = _CODES[name]
    _, columns = _OPERATIONS[name]
    for k, column in enumerate(columns, start=1):
        rows[:, k] = params[column]
    if name == 'ColorJitter':
        idle = rows[:, 1:5] == _UNCHANGED  # (n, 4)
        idle = np.take_along_axis(idle, params['order'], axis=1)
        rows[:, 5:] = np.where(idle, NOTHING, params['order'])
    rows[~applied] = 0
    return rows


def decode_step(row: Sequence[float]) -> dict | None:
    """The parameters that a row of :func:`encode_step` stands for.

    Returns:
        Parameters, a jitter's in the order of their application and without those that
        change nothing; None: not applied.
    """
    if not row[0]:
        return None
    name = _NAMES[int(row[0]) - 1]
    if name == 'ColorJitter':
        return {_JITTER[int(k)]: row[1 + int(k)] for k in row[5:] if k != NOTHING}
    _, columns = _OPERATIONS[name]
    return {
        column: int(number) if column in _WHOLE else number
        for column, number in zip(columns, row[1:])
    }


def _jitter_operation(name: str, factor: float) -> int:
    k = _JITTER.index(name)
    return NOTHING if factor == _UNCHANGED[k] else k


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
    params = step[:, 1 : 1 + len(columns)].unbind(1)
    return lambda images: function(images, *params)
