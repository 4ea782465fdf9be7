"""Colour jitter with separate factors and order for each image of a batch."""

import torch
from torch import Tensor

from .pixels import FLOOR, on_rows, per_image, to_levels

# ITU-R 601, red, green and blue.
_LUMA = (0.299, 0.587, 0.114)

BRIGHTNESS, CONTRAST, SATURATION, HUE, NOTHING = range(5)


def luma(images: Tensor) -> Tensor:
    """Grey images, (n, 1, S, S) uint8, rounded to whole levels."""
    red, green, blue = images.split(1, dim=1)
    half = torch.full((), 0.5, device=images.device)  # the cast to uint8 then rounds
    gray = torch.add(half, red, alpha=_LUMA[0])
    gray.add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return gray.to(torch.uint8)


def grayscale(images: Tensor) -> Tensor:
    """Grey images with three equal channels."""
    return luma(images).expand_as(images)


def color_jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in a separate order for each image.

    Brightness, contrast and saturation blend the image with black, with its mean grey and
    with its grey version. One blend over all images does the k-th operation of each image,
    whichever of the three it is. Images with hue as k-th operation are turned by themselves.

    Source: SimCLR, arXiv:2002.05709, Appendix A, "Color distortion".

    Args:
        images: (n, 3, S, S) uint8 RGB.
        factors: (n, 4) brightness, contrast and saturation >= 0, hue in [-0.5, 0.5] turns.
        order: (n, 4) integers: which operation comes first, second, third and fourth;
            0 brightness, 1 contrast, 2 saturation, 3 hue, 4 none.

    Returns:
        (n, 3, S, S) uint8 RGB, clipped and rounded down after each operation, as in PIL.
    """
    padded = torch.nn.functional.pad(factors, (0, 1))  # (n, 5)
    for operation in order.unbind(1):  # (n,), four times
        drawn = padded.gather(1, operation[:, None])[:, 0]  # (n,)
        if (operation < HUE).any():
            shares = per_image(_shares(operation, drawn), images)  # (3, n, 1, 1, 1)
            images = blend(images, *shares.unbind(0))
        rows = (operation == HUE).nonzero()[:, 0]
        if len(rows):
            # 255, not 256, and truncated, as in torchvision.
            steps = per_image((drawn[rows] * 255).trunc(), images)
            images = on_rows(images, rows, lambda some: turn_hue(some, steps))
    return images


def _shares(operation: Tensor, factor: Tensor) -> Tensor:
    """Weights of the image, its mean grey and its grey version in the blend, (3, n)."""
    image = torch.where(operation < HUE, factor, 1.0)
    mean = torch.where(operation == CONTRAST, 1 - factor, 0.0)
    gray = torch.where(operation == SATURATION, 1 - factor, 0.0)
    return torch.stack((image, mean, gray))


def blend(images: Tensor, image: Tensor, mean: Tensor, gray: Tensor) -> Tensor:
    """Sum of each image, its mean grey and its grey version, with (n, 1, 1, 1) float32 weights."""
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
    # Sixths of a turn, in [0, 6]. OpenCV and PIL read 256 steps back with the factor 255.
    hue.add_(steps).remainder_(256).mul_(6 / 255)
    value = value + 0.5  # the cast to uint8 then rounds
    out = torch.empty_like(images)
    # A channel falls by the whole chroma where the hue is far from the channel's own hue.
    for c, (centre, sign) in enumerate(((3, -1), (2, 1), (4, 1))):
        far = (hue - centre).abs_().clamp_(1, 2)  # (n, 1, S, S)
        far.sub_(1 if sign > 0 else 2).mul_(sign)
        out[:, c : c + 1] = torch.addcmul(value, chroma, far, value=-1)
    return out


def _hue_chroma_value(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in whole steps of 1/256 turn, chroma (value times 8-bit saturation), and value."""
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
