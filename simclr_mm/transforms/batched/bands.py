"""Jitter, noise and drop of bands for a batch, with (n, C) numbers on the host for n images."""

import torch
from torch import Tensor

from .geometric import normal_noise
from .pixels import to_levels


def jitter(images: Tensor, gain: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """g (m + c (x - m)) + b for every value x of a band with the mean m, in one pass."""
    factor, towards_mean = gain * contrast, gain - gain * contrast
    other = per_band(brightness, images)
    if towards_mean.any():
        means = images.mean((2, 3), dtype=torch.float32, keepdim=True)  # (n, C, 1, 1)
        other = torch.addcmul(other, means, per_band(towards_mean, images))
    made = torch.addcmul(other, images, per_band(factor, images))
    return to_levels(made, 0.5, images.dtype)


def noise(images: Tensor, std: Tensor, seeds: Tensor) -> Tensor:
    """Add independent normal noise of (n, C) standard deviations. It depends on all seeds."""
    made = normal_noise(images, int(seeds.long().sum()))
    made.mul_(per_band(std, images)).add_(images)
    return to_levels(made, 0.5, images.dtype)


def drop(images: Tensor, dropped: Tensor, fill: Tensor) -> Tensor:
    """Replace the bands that are ``dropped`` by ``fill``."""
    made = torch.where(per_band(dropped, images) > 0, per_band(fill, images), images)
    return to_levels(made, 0.5, images.dtype)


def per_band(values: Tensor, images: Tensor) -> Tensor:
    """(n, C) numbers from the host as float32 on the images' device, (n, C, 1, 1)."""
    values = values.to(torch.float32)[..., None, None]
    return values.to(images.device, non_blocking=True)
