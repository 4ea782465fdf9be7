"""Colour jitter with its own factors and its own order for every image of a batch."""

import torch
from torch import Tensor

from .pixels import FLOOR, on_rows, per_image, to_levels

# ITU-R 601, red, green and blue.
_LUMA = (0.299, 0.587, 0.114)

BRIGHTNESS, CONTRAST, SATURATION, HUE, NOTHING = range(5)


def luma(images: Tensor) -> Tensor:
    """Grey images, (n, 1, S, S) uint8, rounded to whole levels."""
    red, green, blue = images.split(1, dim=1)
    half = torch.full((), 0.5, device=images.device)  # so that cutting off rounds
    gray = torch.add(half, red, alpha=_LUMA[0])
    gray.add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return gray.to(torch.uint8)


def grayscale(images: Tensor) -> Tensor:
    """Grey images with three equal channels."""
    return luma(images).expand_as(images)


def color_jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of each image in an order of its own.

    Brightness, contrast and saturation are blends of the image with black, with its
    mean grey and with its greys. So one blend for all images does the k-th operation of
    each, whichever of the three it is. Hue is turned for those images alone for which it is
    the k-th operation.

    Source: SimCLR, arXiv:2002.05709, Appendix A, "Color distortion".

    Args:
        images: (n, 3, S, S) uint8 RGB.
        factors: (n, 4) brightness, contrast and saturation >= 0, hue in [-0.5, 0.5] turns.
        order: (n, 4) integers: which operation comes first, second, third and fourth;
            0 brightness, 1 contrast, 2 saturation, 3 hue, 4 none.

    Returns:
        (n, 3, S, S) uint8 RGB, clipped and rounded down after each operation, as by PIL.
    """
    padded = torch.nn.functional.pad(factors, (0, 1))  # (n, 5)
    for operation in order.unbind(1):  # (n,), four times
        drawn = padded.gather(1, operation[:, None])[:, 0]  # (n,)
        if (operation < HUE).any():
            shares = per_image(_shares(operation, drawn), images)  # (3, n, 1, 1, 1)
            images = blend(images, *shares.unbind(0))
        rows = (operation == HUE).nonzero()[:, 0]
        if len(rows):
            # 255, not 256, and cut towards zero: what torchvision does.
            steps = per_image((drawn[rows] * 255).trunc(), images)
            images = on_rows(images, rows, lambda some: turn_hue(some, steps))
    return images


def _shares(operation: Tensor, factor: Tensor) -> Tensor:
    """What an image, its mean grey and its greys weigh in its blend, (3, n)."""
    image = torch.where(operation < HUE, factor, 1.0)
    mean = torch.where(operation == CONTRAST, 1 - factor, 0.0)
    gray = torch.where(operation == SATURATION, 1 - factor, 0.0)
    return torch.stack((image, mean, gray))


def blend(images: Tensor, image: Tensor, mean: Tensor, gray: Tensor) -> Tensor:
    """Each image, its mean grey and its greys times their shares, (n, 1, 1, 1) float32."""
    other = torch.add(_mean_gray(images) * mean, FLOOR)  # (n, 1, 1, 1)
    other = torch.addcmul(other, luma(images), gray)  # (n, 1, S, S)
    return to_levels(torch.addcmul(other, images, image), 0)


def _mean_gray(images: Tensor) -> Tensor:
    """(n, 3, S, S) -> (n, 1, 1, 1), a whole number."""
    # float32 counts 2^24 = 65793 pixels of 255 exactly, 256 x 256 of them.
    means = images.mean((2, 3), dtype=torch.float32, keepdim=True)  # (n, 3, 1, 1)
    red, green, blue = means.split(1, dim=1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue + 0.5).floor_()


def turn_hue(images: Tensor, steps: Tensor) -> Tensor:
    """Turn the colour circle by (n, 1, 1, 1) whole steps of 1/256 turn, as in 8-bit HSV."""
    hue, chroma, value = _hue_chroma_value(images)
    # Into sixths of a turn, in [0, 6]. From 256 steps OpenCV goes back by 255, as PIL does.
    hue.add_(steps).remainder_(256).mul_(6 / 255)
    value = value + 0.5  # rounds: to uint8 it is cut off
    out = torch.empty_like(images)
    # A channel falls by the whole chroma where the hue is far from its own.
    for c, (centre, sign) in enumerate(((3, -1), (2, 1), (4, 1))):
        far = (hue - centre).abs_().clamp_(1, 2)  # (n, 1, S, S)
        far.sub_(1 if sign > 0 else 2).mul_(sign)
        out[:, c : c + 1] = torch.addcmul(value, chroma, far, value=-1)
    return out


def _hue_chroma_value(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in whole steps of 1/256 turn, and value times saturation of 8 bits, value."""
    red, green, blue = images.to(torch.int16).split(1, dim=1)  # (n, 1, S, S)
    value = torch.maximum(torch.maximum(red, green), blue)
    range_ = value - torch.minimum(torch.minimum(red, green), blue)
    sixths = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, blue - red + 2 * range_, red - green + 4 * range_),
    )
    hue = sixths * (256 / 6) / range_.clamp(min=1)
    hue.add_(0.5).floor_()
    saturation = range_ * 255.0 / value.clamp(min=1)
    saturation.add_(0.5).floor_()
    return hue, saturation.mul_(value).div_(255), value
