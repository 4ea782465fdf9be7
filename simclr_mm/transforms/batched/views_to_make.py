"""A batch of whole images with all that was drawn for their views, and the views."""

from typing import NamedTuple

from torch import Tensor

from .crop import resized_crops
from .steps import augment


class ViewsToMake(NamedTuple):
    """What a dataset in memory sends where the device makes the views.

    n images, V views, T steps of a pipeline, S side of a view in pixels.

    Args:
        images: (n, H, W, 3) uint8 BGR.
        boxes: (n, V, 4) int64: top, left, height and width in pixels.
        flips: (n, V) bool.
        steps: (n, V, T, STEP_WIDTH) float64, rows of ``encode_step``.
        size: S.
        interpolation: 'bilinear' or 'bicubic'.
    """

    images: Tensor
    boxes: Tensor
    flips: Tensor
    steps: Tensor
    size: int
    interpolation: str

    def make(self, images: Tensor) -> Tensor:
        """Crop, flip and augment.

        Args:
            images: (n, 3, H, W) uint8 RGB: ``self.images`` on the device.

        Returns:
            (nV, 3, S, S) uint8 RGB.
        """
        crops = resized_crops(images, self.boxes, self.flips, self.size, self.interpolation)
        return augment(crops, self.steps.flatten(0, 1))
