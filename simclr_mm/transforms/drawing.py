"""Build the pipelines of TwoViews, and draw the parameters of views, one by one or in a batch.

Both draw the same numbers. A drawn view is a list of parameters, first those of the crop.
None stands for a step that is not applied. n images, V views, T steps of a pipeline.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from simclr_mm.errors import UserError
from simclr_mm.registry import TRANSFORMS

from .base import DeviceTransform
from .batched.crop import INTERPOLATIONS
from .batched.views_to_make import CROP_WIDTH, STEP_WIDTH
from .color import ColorDistortion
from .crop import RandomCropAndFlip
from .random_streams import RandomStream, batch_streams


def build_pipelines(
    transforms: Sequence, num_views: int, sizes: Sequence[int]
) -> list[list[Callable]]:
    """Build the ``transforms`` of TwoViews: V lists, with ColorDistortion split into its parts.

    They are configs for all views, or one list of configs for each view.

    Raises:
        UserError: The number of pipelines is not V, or a transform has another size.
    """
    per_view = [isinstance(entry, (list, tuple)) for entry in transforms]
    if not any(per_view):
        transforms = [transforms] * num_views
    elif not all(per_view):
        raise UserError(
            'TwoViews: transforms mixes transforms and lists of transforms: write one '
            'list for all views, or one list for each view (an empty one for a view '
            'that is cropped and flipped only).'
        )
    elif len(transforms) != num_views:
        raise UserError(
            f'TwoViews: transforms has {len(transforms)} pipelines, but num_views is '
            f'{num_views}: write {num_views} pipelines, or one flat list for all views.'
        )
    pipelines: list[list[Callable]] = [[] for _ in transforms]
    for pipeline, cfgs in zip(pipelines, transforms):
        for transform in map(TRANSFORMS.build, cfgs):
            is_pair = type(transform) is ColorDistortion
            pipeline += [transform.jitter, transform.gray] if is_pair else [transform]
    for step in sum(pipelines, []):
        if type(step) is RandomCropAndFlip and {step.size or size for size in sizes} != {*sizes}:
            raise UserError(
                f'TwoViews: RandomCropAndFlip(size={step.size}) among the transforms of views of '
                f'{" and ".join(map(str, sizes))} pixels: leave its size out.'
            )
    return pipelines


def is_foreign(transform: Callable) -> bool:
    """Whether a transform cannot be drawn ahead and applied on the device.

    Such a transform may return anything, and draw from the global generators.
    """
    return not (isinstance(transform, DeviceTransform) and transform.paint_batch is not None)


class Recipe(Protocol):
    """The attributes of TwoViews that drawing needs."""

    num_views: int
    interpolation: str
    crop: RandomCropAndFlip
    pipelines: list[list[DeviceTransform]]
    step_shape: tuple[int, int]


def draw_view(
    views: Recipe, v: int, size: int, height: int, width: int, streams: Sequence[RandomStream]
) -> list[Any]:
    """Draw view ``v``, of a size, of an image with one stream for the crop and for each step."""
    steps = zip(views.pipelines[v], streams[1:])
    crop = views.crop.draw(height, width, streams[0])
    return [crop, *(step.record(size, rng) for step, rng in steps)]


def draw_batch(
    views: Recipe,
    addresses: tuple[Sequence[int], Sequence[int], Sequence[int]],
    size: int,
    height: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw all views, of one size, of n images of one height and width in pixels.

    ``addresses`` are (n,) seeds of the run, epochs, and indices in the dataset. Returns ``crops``
    and ``steps`` of :class:`~simclr_mm.transforms.batched.ViewsToMake`.
    """
    n = len(addresses[0])
    crops = np.empty((n, views.num_views, CROP_WIDTH))
    crops[..., -2:] = size, INTERPOLATIONS.index(views.interpolation)
    steps = np.zeros((n, views.num_views, *views.step_shape))
    for v, pipeline in enumerate(views.pipelines):
        crop, *others = batch_streams(*addresses, v, 1 + len(pipeline))
        _fill(crops[:, v], views.crop.draw_batch(height, width, crop))
        for t, (step, streams) in enumerate(zip(pipeline, others)):
            applied = streams.random() < step.prob
            numbers = step.draw_batch(size, size, streams)
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
