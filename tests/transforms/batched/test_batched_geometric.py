"""Batched rotation, cutout, Sobel and noise against the worker's, image by image."""

import cv2
import numpy as np
import pytest
import torch
from scipy import stats

from simclr_mm.transforms import geometric
from simclr_mm.transforms.batched.geometric import cutout, gaussian_noise, rotate, sobel


@pytest.fixture(scope='module')
def photos(imagenet_sample):
    """(6, 3, 64, 64) uint8."""
    files = sorted(imagenet_sample.glob('train/*/*.JPEG'))[:6]
    images = [cv2.resize(cv2.imread(str(file)), (64, 64)) for file in files]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


# Before 5, OpenCV rounds positions in warpAffine to 1/32 of a pixel.
EXACT_WARP = int(cv2.__version__.split('.')[0]) >= 5


def difference(image, theirs):
    """Mean absolute difference of (3, S, S) to the worker's (S, S, 3)."""
    return np.abs(image.permute(1, 2, 0).numpy().astype(int) - theirs).mean()


def worker_images(photos):
    return [np.ascontiguousarray(photo.permute(1, 2, 0).numpy()) for photo in photos]


def test_each_image_has_its_own_angle(photos):
    degrees = torch.tensor([-30, 0, 3.7, 145, 90, -179], dtype=torch.float64)
    turned = rotate(photos, degrees)
    for row, img in enumerate(worker_images(photos)):
        theirs = geometric.rotate(img, float(degrees[row]))
        assert difference(turned[row], theirs) < (0.05 if EXACT_WARP else 1)
    assert torch.equal(turned[1], photos[1])


def test_quarter_turns_are_exact(photos):
    turned = rotate(photos, torch.tensor([0, 90, 180, 270, 90, 0]))
    for row, quarters in enumerate((0, 1, 2, 3, 1, 0)):
        assert torch.equal(turned[row], photos[row].rot90(quarters, (1, 2)))


def test_cutout_paints_each_square_only(photos):
    top, left = torch.tensor([-3, 0, 60, 10, 5, 0]), torch.tensor([5, 0, 60, -1, 5, 0])
    side = torch.tensor([8, 64, 9, 2, 1, 0])
    cut = cutout(photos, top, left, side)
    for row in range(6):
        expected = photos[row].clone()
        for y in range(int(top[row]), int(top[row] + side[row])):
            for x in range(int(left[row]), int(left[row] + side[row])):
                if 0 <= y < 64 and 0 <= x < 64:
                    expected[:, y, x] = 128
        assert torch.equal(cut[row], expected)


def test_sobel_is_the_workers(photos):
    edges = sobel(photos)
    for row, img in enumerate(worker_images(photos)):
        assert difference(edges[row], geometric.sobel(img)) < 0.01
    assert sobel(photos[:, :, :1, :1]).max() == 0  # one pixel has no gradient


def test_noise_is_normal_with_each_images_deviation():
    images = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    std = torch.tensor([0.0, 3, 12, 25])
    seeds = torch.tensor([11.0, 12, 13, 14])
    noisy = gaussian_noise(images, std, seeds)
    assert torch.equal(noisy[0], images[0])
    for row in range(1, 4):
        z = (noisy[row].double().numpy() - 128) / float(std[row])
        assert abs(z.mean()) < 4 / np.sqrt(z.size)
        # Rounding to whole levels adds 1/12 to the variance.
        assert abs(z.std() - np.sqrt(1 + 1 / (12 * float(std[row]) ** 2))) < 0.03
        assert abs(stats.kurtosis(z, axis=None)) < 0.2
    flat = noisy[1:].flatten(1).double().numpy() - 128
    assert np.abs(np.corrcoef(flat) - np.eye(3)).max() < 0.04  # independent
    again = gaussian_noise(images, std, seeds)
    assert torch.equal(again, noisy)
    other = gaussian_noise(images, std, seeds + 1)
    assert not torch.equal(other, noisy)


def test_noise_clips():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    images = images.expand(2, 3, 40, 40)
    noisy = gaussian_noise(images, torch.tensor([30.0, 30]), torch.tensor([1, 2]))
    for row, edge in ((0, 0), (1, 255)):
        assert 0.45 < (noisy[row] == edge).float().mean() < 0.57  # half points outwards
