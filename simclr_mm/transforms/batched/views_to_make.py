"""The batch of views that are drawn on the host and made on the device.

n images, V views, T steps of a pipeline, S side of a view in pixels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from simclr_mm.losses.precision import full_float32

from .crop import INTERPOLATIONS, resized_crops

# Columns of a step: the code of the transform (0 if it is not applied), and up to eight
# parameters. One fixed width lets datasets with different pipelines share a batch.
STEP_WIDTH = 9
CROP_WIDTH = 7

# Code of a DeviceTransform to its apply_batch. Each subclass adds itself.
TWINS: dict[int, Callable[[Tensor, Tensor, Tensor], Tensor]] = {}


def augment(images: Tensor, steps: Tensor) -> Tensor:
    """Apply to every image the (n, T, STEP_WIDTH or more) steps that were drawn for it."""
    for step in steps.unbind(1):  # (n, STEP_WIDTH), T times
        codes = step[:, 0]
        for code in codes.unique().tolist():
            if code:
                images = TWINS[int(code)](images, codes == code, step[:, 1:])
    return images


class ViewsToMake(NamedTuple):
    """Images, and the numbers that were drawn for their views.

    Args:
        images: (n, H, W, C) images, or (n, V, S, S, C) crops of them, uint8 or float32; C = 3
            of uint8 are BGR.
        crops: (n, V, CROP_WIDTH) float64: top, left, height and width in pixels, flip
            (0 or 1), S, and the index in INTERPOLATIONS. Not used if ``images`` are crops.
        steps: (n, V, T, STEP_WIDTH or more) float64: a code and parameters.
    """

    images: Tensor
    crops: Tensor
    steps: Tensor

    @classmethod
    def restored(cls, inputs: Any) -> Any:
        """Undo the list that mmpretrain's PackInputs and pseudo_collate make of it.

        Nothing else is three tensors, of uint8 or float32, float64 and float64. All other inputs
        are returned unchanged.
        """
        if not isinstance(inputs, list) or len(inputs) != len(cls._fields):
            return inputs
        parts = [_stacked(part) for part in inputs]
        dtypes = [getattr(part, 'dtype', None) for part in parts]
        fits = dtypes[0] in (torch.uint8, torch.float32) and dtypes[1:] == [torch.float64] * 2
        return cls(*parts) if fits else inputs

    def make(self, images: Tensor) -> Tensor:
        """Crop and flip where it is still to do, and augment: (nV, C, S, S), as ``images``.

        ``images`` is ``self.images`` on the device, (m, C, H, W), bands in the opposite order,
        so BGR is RGB here. float32 is computed without TF32.
        """
        if images.dtype != torch.uint8:
            with full_float32(images.device):
                return self._views(images)
        return self._views(images)

    def _views(self, images: Tensor) -> Tensor:
        if self.images.ndim == 4:
            boxes, flips = self.crops[..., :4], self.crops[..., 4] > 0
            size, interpolation = (int(number) for number in self.crops[0, 0, 5:])
            images = resized_crops(images, boxes, flips, size, INTERPOLATIONS[interpolation])
        return augment(images, self.steps.flatten(0, 1))


def _stacked(part: Any) -> Any:
    """Stack n tensors of one shape; return anything else unchanged."""
    if isinstance(part, (list, tuple)) and part and all(isinstance(p, Tensor) for p in part):
        return torch.stack(list(part)) if len({p.shape for p in part}) == 1 else part
    return part
