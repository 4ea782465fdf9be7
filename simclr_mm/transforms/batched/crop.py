"""Random resized crops of a batch: cut, resize as in PIL, and flip.

n images, V crops of each, S side of a crop in pixels.
"""

import torch
from torch import Tensor

from .pixels import to_levels


def resized_crops(
    images: Tensor, boxes: Tensor, flips: Tensor, size: int, interpolation: str = 'bilinear'
) -> Tensor:
    """Cut V boxes out of every image and resize them, antialiased where they shrink.

    Resizing one axis is a product with a matrix of weights, which is zero outside the box. Two
    batched products cut and resize all boxes, whatever their sizes. Mirrored weights flip.

    Args:
        images: (n, C, H, W) uint8 or float32, on any device.
        boxes: (n, V, 4) top, left, height and width in whole pixels, inside the image.
        flips: (n, V) bool.
        size: S.
        interpolation: 'bilinear' or 'bicubic'.

    Returns:
        (nV, C, S, S), the crops of one image in a row. uint8 is rounded after each axis as in PIL.
    """
    boxes = boxes.to(images.device, torch.float32, non_blocking=True)
    top, left, height, width = boxes.unbind(-1)  # (n, V) each
    rows = _weights(top, height, images.shape[2], size, interpolation)
    columns = _weights(left, width, images.shape[3], size, interpolation)
    flips = flips.to(images.device, non_blocking=True)[..., None, None]
    columns = torch.where(flips, columns.flip(2), columns)  # (n, V, S, W)
    # TF32, if switched on, has an error of a tenth of a level at most; float32 does without it.
    narrow = torch.einsum('nchw,nvsw->nvchs', images.float(), columns)  # (n, V, C, H, S)
    if images.dtype == torch.uint8:
        narrow.add_(0.5).floor_().clamp_(0, 255)  # whole levels
    crops = torch.einsum('nvth,nvchs->nvcts', rows, narrow)
    return to_levels(crops, 0.5, images.dtype).flatten(0, 1)  # (nV, C, S, S)


def crop_and_flip(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, flip: Tensor
) -> Tensor:
    """One bilinear crop of each image, resized to the image's side.

    The box is in pixels, (n,) each; ``flip`` is 0 or 1.
    """
    boxes = torch.stack((top, left, height, width), dim=-1)[:, None]  # (n, 1, 4)
    return resized_crops(images, boxes, flip[:, None] > 0, images.shape[-1])


def _weights(start: Tensor, length: Tensor, pixels: int, size: int, interpolation: str) -> Tensor:
    """Weights of the P pixels of an axis for the S pixels of a crop, (n, V, S, P) float32.

    The crop has (n, V) ``length`` pixels from ``start``. Source: PIL's ImagingResample. The
    filter is as wide as the crop is shrunk, ends at the crop's border, and sums to one.
    """
    device = start.device
    ratio = length / size  # (n, V), above 1 where the crop shrinks
    centres = (torch.arange(size, device=device) + 0.5) * ratio[..., None]  # (n, V, S)
    places = torch.arange(pixels, device=device) + 0.5 - start[..., None]  # (n, V, P)
    distances = places[..., None, :] - centres[..., None]  # (n, V, S, P)
    distances.div_(ratio.clamp(min=1)[..., None, None]).abs_()
    weights = _FILTERS[interpolation](distances)
    inside = (places > 0) & (places < length[..., None])  # (n, V, P)
    weights.mul_(inside[..., None, :])
    return weights.div_(weights.sum(-1, keepdim=True))


def _triangle(distances: Tensor) -> Tensor:
    return (1 - distances).clamp_(min=0)


def _cubic(distances: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, as in PIL."""
    near = (1.5 * distances - 2.5) * distances**2 + 1
    far = ((2.5 - 0.5 * distances) * distances - 4) * distances + 2
    return torch.where(distances < 1, near, torch.where(distances < 2, far, 0.0))


_FILTERS = {'bilinear': _triangle, 'bicubic': _cubic}
INTERPOLATIONS = tuple(_FILTERS)
