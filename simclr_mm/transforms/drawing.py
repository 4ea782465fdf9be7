"""What is drawn for views: of one image by itself, or of a whole batch by array operations.

Both draw the same numbers. n images, V views, T steps of a pipeline.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from simclr_mm.errors import UserError

from .base import DeviceTransform
from .batched import CROP_WIDTH, INTERPOLATIONS, STEP_WIDTH
from .crop import Box, sample_crop, sample_crops
from .random_streams import RandomStream, batch_streams


class Recipe(Protocol):
    """What TwoViews says about its views; see its arguments."""

    size: int
    num_views: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip_prob: float
    interpolation: str
    pipelines: list[list[DeviceTransform]]


class DrawnView(NamedTuple):
    """Crop, flip and steps of one view.

    Args:
        box: Top, left, height and width in pixels.
        flip: Whether to mirror it left to right.
        steps: T, the parameters of each transform; None: not applied.
    """

    box: Box
    flip: bool
    steps: list[dict | None]


def draw_crop(views: Recipe, height: int, width: int, rng: RandomStream) -> DrawnView:
    """Draw crop and flip of an image of this height and width in pixels."""
    flip = rng.random() < views.flip_prob
    return DrawnView(sample_crop(height, width, views.scale, views.ratio, rng), flip, [])


def draw_view(
    views: Recipe, v: int, height: int, width: int, streams: Sequence[RandomStream]
) -> DrawnView:
    """Draw the whole view number ``v``: a stream for the crop, and one for each step."""
    box, flip, _ = draw_crop(views, height, width, streams[0])
    steps = zip(views.pipelines[v], streams[1:])
    return DrawnView(box, flip, [step.record(views.size, rng) for step, rng in steps])


def draw_batch(
    views: Recipe,
    addresses: tuple[Sequence[int], Sequence[int], Sequence[int]],
    height: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw all views of n images.

    Args:
        views: What to draw.
        addresses: (n,) seeds of the run, epochs, and places in the dataset.
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        ``crops`` and ``steps`` of :class:`~simclr_mm.transforms.batched.ViewsToMake`.
    """
    crops, steps = no_numbers(views, len(addresses[0]))
    crops[..., 5:] = views.size, INTERPOLATIONS.index(views.interpolation)
    for v, pipeline in enumerate(views.pipelines):
        crop, *others = batch_streams(*addresses, v, 1 + len(pipeline))
        crops[:, v, 4] = crop.random() < views.flip_prob
        crops[:, v, :4] = sample_crops(height, width, views.scale, views.ratio, crop)
        for rows, step, streams in zip(steps[:, v].swapaxes(0, 1), pipeline, others):
            applied = streams.random() < step.prob
            try:
                params = step.draw_batch(views.size, views.size, streams)
            except (AttributeError, TypeError, ValueError) as error:
                raise UserError(
                    f'{type(step).__name__}.draw cannot draw for a whole batch ({error}): write '
                    f'draw_batch, or batched=False in the dataset.'
                ) from error
            rows[:, 0] = step.code
            for k, numbers in enumerate(step.encode(params), start=1):
                rows[:, k] = numbers
            rows[~applied] = 0
    return crops, steps


def encode_view(
    views: Recipe, v: int, drawn: DrawnView, crop: np.ndarray, steps: np.ndarray
) -> None:
    """Write one view into zeros of :func:`no_numbers`: (CROP_WIDTH), and (T, width)."""
    crop[:] = *drawn.box, drawn.flip, views.size, INTERPOLATIONS.index(views.interpolation)
    for row, step, params in zip(steps, views.pipelines[v], drawn.steps):
        if params is not None:
            numbers = step.encode(params)
            row[0], row[1 : 1 + len(numbers)] = step.code, numbers


def decode_view(views: Recipe, v: int, crop: Sequence, steps: Sequence) -> DrawnView:
    """A view that :func:`draw_batch` drew, whose rows are lists."""
    top, left, height, width, flip = map(int, crop[:5])
    pairs = zip(views.pipelines[v], steps)
    params = [step.decode(row[1:]) if row[0] else None for step, row in pairs]
    return DrawnView((top, left, height, width), bool(flip), params)


def no_numbers(views: Recipe, *images: int) -> tuple[np.ndarray, np.ndarray]:
    """``crops`` and ``steps`` of ViewsToMake, all zero, without or with an axis of images."""
    # One step at least: an empty tensor cannot be collated.
    length = max([1, *map(len, views.pipelines)])
    widths = [1 + len(step.columns) for pipeline in views.pipelines for step in pipeline]
    steps = np.zeros((*images, views.num_views, length, max([STEP_WIDTH, *widths])))
    return np.zeros((*images, views.num_views, CROP_WIDTH)), steps
