"""Rotation, cutout, Sobel and noise for a batch, with parameters for each image."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .pixels import FLOOR, on_rows, per_image, to_levels

# Near the ImageNet mean, so near zero after normalisation, as in cutout's paper
# (arXiv:1708.04552).
MID_GRAY = 128


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image by (n,) degrees counter-clockwise about the centre, keeping the size.

    The border is repeated outwards. Quarter turns are exact. Other angles are bilinear and
    rounded down, as in PIL.
    """
    quarters = (degrees / 90) % 4
    for turns in (1, 2, 3):
        rows = (quarters == turns).nonzero()[:, 0]
        if len(rows):
            images = on_rows(images, rows, lambda some: some.rot90(turns, (2, 3)))
    rows = (quarters % 1 != 0).nonzero()[:, 0]
    if len(rows):
        images = on_rows(images, rows, lambda some: _turn(some, degrees[rows]))
    return images


def _turn(images: Tensor, degrees: Tensor) -> Tensor:
    angle = degrees.double().deg2rad()
    cos, sin = per_image(torch.stack((angle.cos(), angle.sin())), images)[..., 0]
    # Coordinates from -1 to 1. Not affine_grid, which TF32 makes inexact.
    x = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    y = x[:, None]
    # From coordinates in the result to coordinates in the image, y downwards.
    grid = torch.stack((x * cos - y * sin, x * sin + y * cos), dim=-1)  # (n, S, S, 2)
    turned = grid_sample(images.float(), grid, padding_mode='border', align_corners=True)
    return to_levels(turned, FLOOR, images.dtype)


def cutout(images: Tensor, top: Tensor, left: Tensor, side: Tensor) -> Tensor:
    """Paint a grey square over each image. (n,) pixels each; it may lie partly outside."""
    places = torch.arange(images.shape[-1])
    rows, columns = (
        (places >= first[:, None]) & (places < (first + side)[:, None]) for first in (top, left)
    )  # (n, S) each
    rows = rows.to(images.device, non_blocking=True)
    columns = columns.to(images.device, non_blocking=True)
    square = rows[:, None, :, None] & columns[:, None, None]  # (n, 1, S, S)
    return images.masked_fill(square, MID_GRAY)


def sobel(images: Tensor) -> Tensor:
    """A quarter of the length of the 3 x 3 Sobel gradient of every channel, clipped."""
    mirrored = np.pad(np.arange(images.shape[-1]), 1, mode='reflect')
    around = torch.from_numpy(mirrored).to(images.device, non_blocking=True)
    images = images.index_select(2, around).index_select(3, around).to(torch.int16)
    before, here, after = images[..., :-2], images[..., 1:-1], images[..., 2:]
    dx = (after - before).float()  # (n, 3, S + 2, S)
    smooth = (before + 2 * here + after).float()  # (n, 3, S + 2, S)
    dx = dx[:, :, :-2] + 2 * dx[:, :, 1:-1] + dx[:, :, 2:]  # (n, 3, S, S)
    dy = smooth[:, :, 2:] - smooth[:, :, :-2]  # (n, 3, S, S)
    return to_levels(torch.hypot(dx, dy).mul_(0.25).round_(), 0)


def gaussian_noise(images: Tensor, std: Tensor, seeds: Tensor) -> Tensor:
    """Add independent normal noise of (n,) standard deviations in grey levels, and clip.

    The noise of the batch depends on the sum of the (n,) seeds and on the kind of device.
    """
    noise = normal_noise(images, int(seeds.long().sum()))
    noise.mul_(per_image(std, images)).add_(images)
    return to_levels(noise, 0.5)


def normal_noise(images: Tensor, seed: int) -> Tensor:
    """Standard normal numbers, as many as the images have values."""
    generator = torch.Generator(images.device)
    generator.manual_seed(seed)
    return torch.randn(images.shape, generator=generator, device=images.device)
