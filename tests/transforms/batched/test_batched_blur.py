"""Blur as matrix products against the worker's convolution and a naive loop."""

import numpy as np
import pytest
import torch

from simclr_mm.transforms import blur
from simclr_mm.transforms.batched.blur import gaussian_blur


def noise(count, side):
    generator = torch.Generator().manual_seed(side)
    shape = (count, 3, side, side)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize('side', [96, 20, 7])
def test_each_image_has_its_own_sigma_and_kernel(side):
    images = noise(6, side)
    sigma = torch.tensor([0.1, 0.5, 2.0, 1.3, 0.9, 1.9])
    kernel = torch.tensor([9, 9, 9, 3, 1, 23.0])
    ours = gaussian_blur(images, sigma, kernel)
    for row, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        worker = blur.gaussian_blur(image, int(kernel[row]), float(sigma[row]))
        worker = worker.transpose(2, 0, 1).astype(int)
        assert np.abs(ours[row].numpy() - worker).mean() < 0.02
    assert torch.equal(ours[4], images[4])  # a kernel of one pixel


def test_naive_loop():
    side, radius, sigma = 6, 2, 1.1
    image = noise(1, side)
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    expected = np.zeros((3, side, side))
    for y in range(side):
        for x in range(side):
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    yy, xx = abs(y + dy), abs(x + dx)  # mirrored, the edge not repeated
                    yy, xx = (min(p, 2 * (side - 1) - p) for p in (yy, xx))
                    weight = weights[dy + radius] * weights[dx + radius]
                    expected[:, y, x] += weight * image[0, :, yy, xx].numpy()
    ours = gaussian_blur(image, torch.tensor([sigma]), torch.tensor([2 * radius + 1]))
    assert np.abs(ours[0].numpy() - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize('side', [1, 2])
def test_kernels_wider_than_the_image(side):
    image = torch.full((1, 3, side, side), 77, dtype=torch.uint8)
    blurred = gaussian_blur(image, torch.tensor([2.0]), torch.tensor([9]))
    assert torch.equal(blurred, image)
