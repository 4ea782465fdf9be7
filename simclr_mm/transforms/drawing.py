"""Draw the parameters of views: for one image, or for a batch with array operations.

Both draw the same numbers. A drawn view is a list of parameters, first those of the crop.
None stands for a step that is not applied. n images, V views, T steps of a pipeline.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .base import DeviceTransform
from .batched.crop import INTERPOLATIONS
from .batched.views_to_make import CROP_WIDTH, STEP_WIDTH
from .crop import RandomCropAndFlip
from .random_streams import RandomStream, batch_streams


class Recipe(Protocol):
    """The attributes of TwoViews that drawing needs."""

    size: int
    num_views: int
    crop: RandomCropAndFlip
    pipelines: list[list[DeviceTransform]]
    step_shape: tuple[int, int]


def draw_view(
    views: Recipe, v: int, height: int, width: int, streams: Sequence[RandomStream]
) -> list[Any]:
    """Draw view ``v`` of an image with one stream for the crop and one for each step."""
    steps = zip(views.pipelines[v], streams[1:])
    crop = views.crop.draw(height, width, streams[0])
    return [crop, *(step.record(views.size, rng) for step, rng in steps)]


def draw_batch(
    views: Recipe,
    addresses: tuple[Sequence[int], Sequence[int], Sequence[int]],
    height: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw all views of n images of one height and width in pixels.

    ``addresses`` are (n,) seeds of the run, epochs, and indices in the dataset. Returns ``crops``
    and ``steps`` of :class:`~simclr_mm.transforms.batched.ViewsToMake`.
    """
    n = len(addresses[0])
    crops = np.empty((n, views.num_views, CROP_WIDTH))
    crops[..., -2:] = views.size, INTERPOLATIONS.index(views.crop.interpolation)
    steps = np.zeros((n, views.num_views, *views.step_shape))
    for v, pipeline in enumerate(views.pipelines):
        crop, *others = batch_streams(*addresses, v, 1 + len(pipeline))
        _fill(crops[:, v], views.crop.draw_batch(height, width, crop))
        for t, (step, streams) in enumerate(zip(pipeline, others)):
            applied = streams.random() < step.prob
            numbers = step.draw_batch(views.size, views.size, streams)
            _fill(steps[:, v, t], [step.code, *numbers])
            steps[~applied, v, t] = 0
    return crops, steps


def _fill(rows: np.ndarray, columns: Sequence) -> None:
    """Write columns, (n,) or one number each, into the first columns of (n, width) rows."""
    for k, numbers in enumerate(columns):
        rows[:, k] = numbers


def encode_steps(pipeline: list[DeviceTransform], drawn: Sequence, rows: np.ndarray) -> None:
    """Write the drawn steps of a view, without its crop, into (T, width) zeros."""
    for row, step, params in zip(rows, pipeline, drawn):
        if params is not None:
            row[: 1 + len(step.columns)] = [step.code, *step.encode(params)]


def decode_view(views: Recipe, v: int, crop: Sequence, steps: Sequence) -> list[Any]:
    """A drawn view, from lists of its numbers in ``crops`` and ``steps``."""
    pairs = zip(views.pipelines[v], steps)
    params = (step.decode(row[1:]) if row[0] else None for step, row in pairs)
    return [views.crop.decode(crop), *params]


def shape_of_steps(pipelines: list[list]) -> tuple[int, int]:
    """Rows and columns that hold the numbers of every pipeline."""
    # At least one step, because an empty tensor cannot be collated.
    length = max([1, *map(len, pipelines)])
    widths = [1 + len(getattr(step, 'columns', ())) for step in sum(pipelines, [])]
    return length, max([STEP_WIDTH, *widths])
