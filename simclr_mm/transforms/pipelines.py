"""The transforms of TwoViews after crop and flip, one list for each view."""

from collections.abc import Callable, Sequence

from simclr_mm.errors import UserError
from simclr_mm.registry import TRANSFORMS

from .base import DeviceTransform
from .color import ColorDistortion
from .crop import RandomCropAndFlip


def build_pipelines(transforms: Sequence, num_views: int, size: int) -> list[list[Callable]]:
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
        if type(step) is RandomCropAndFlip and step.size not in (None, size):
            raise UserError(
                f'TwoViews: RandomCropAndFlip(size={step.size}) among the '
                f'transforms of views of {size} pixels: leave its size out.'
            )
    return pipelines


def is_foreign(transform: Callable) -> bool:
    """Whether a transform cannot be drawn ahead and applied on the device.

    Such a transform may return anything, and draw from the global generators.
    """
    return not (isinstance(transform, DeviceTransform) and transform.paint_batch is not None)
