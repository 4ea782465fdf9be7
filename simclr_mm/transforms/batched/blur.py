"""Gaussian blur with one sigma for each image of a batch, as matrix products."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .pixels import to_levels


def gaussian_blur(images: Tensor, sigma: Tensor, kernel: Tensor) -> Tensor:
    """Blur with Gaussians that end at their kernels' edges; the border is reflected.

    Along one axis the blur of S pixels, border included, is a product with an S x S matrix. Two
    batched products blur all images, which is fastest on a GPU. A convolution would need a group
    for each image and channel. The (n,) kernels' sides, odd, and the (n,) sigma > 0 are in pixels.
    """
    side = images.shape[-1]
    taps = half_kernels(sigma, kernel)  # (n, R + 1)
    taps = taps.to(images.device, non_blocking=True)
    places = _places(side, taps.shape[1] - 1, images.device)  # (R + 1, S * S)
    matrix = (taps @ places).unflatten(1, (side, side))  # (n, S, S)
    # TF32, if switched on, has an error of a tenth of a level at most; float32 does without it.
    blurred = torch.einsum('nij,ncjk->ncik', matrix, images.float())  # columns
    blurred = torch.einsum('ncik,nlk->ncil', blurred, matrix)  # rows
    return to_levels(blurred, 0.5, images.dtype)


def half_kernels(sigma: Tensor, kernel: Tensor) -> Tensor:
    """Weights at the distances 0 to R, the largest radius. Each whole kernel sums to one."""
    # Beyond four sigma the weights are below 1e-4, less than a uint8 level.
    sigma = sigma.double()
    radius = torch.minimum(kernel.long() // 2, (4 * sigma).ceil().long())
    distance = torch.arange(int(radius.max()) + 1)
    taps = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)  # (n, R + 1)
    taps[distance > radius[:, None]] = 0
    taps /= 2 * taps.sum(1, keepdim=True) - taps[:, :1]  # all but the first count twice
    return taps.float()


@lru_cache(maxsize=16)
def _places(side: int, radius: int, device: torch.device) -> Tensor:
    """How often column pixel and row pixel are at each distance, (R + 1, S * S) float32.

    Mirror images at the border count too.
    """
    pixels = np.arange(side)
    mirrored = np.pad(pixels, radius, mode='reflect')
    counts = np.zeros((radius + 1, side, side), np.float32)
    for offset in range(-radius, radius + 1):
        seen = mirrored[radius + offset : radius + offset + side]
        counts[abs(offset), pixels, seen] += 1
    return torch.from_numpy(counts).flatten(1).to(device)
