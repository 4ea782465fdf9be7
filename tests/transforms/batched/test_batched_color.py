"""Batched colour operations against the worker's and torchvision's, image by image."""

from itertools import permutations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from simclr_mm.transforms.batched.color import color_jitter, grayscale, luma
from simclr_mm.transforms.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    to_gray,
)

WORKER = [adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue]
NONE = 4


@pytest.fixture(scope='module')
def photos(imagenet_sample):
    """(24, 3, 96, 96) uint8 RGB."""
    files = sorted(imagenet_sample.glob('train/*/*.JPEG'))[:24]
    images = [cv2.resize(cv2.imread(str(file)), (96, 96)) for file in files]
    images = np.stack(images)[..., ::-1].transpose(0, 3, 1, 2)
    return torch.from_numpy(images.copy())


def one_by_one(photos, function):
    """The worker's ``function(image BGR, row)`` for each image, as (n, 3, S, S) RGB."""
    made = [
        function(np.ascontiguousarray(photo.permute(1, 2, 0).numpy()[..., ::-1]), row)
        for row, photo in enumerate(photos)
    ]
    return torch.from_numpy(np.stack(made)[..., ::-1].copy()).permute(0, 3, 1, 2)


def difference(ours, theirs):
    """Mean absolute difference in grey levels, of the worst image."""
    return (ours.float() - theirs.float()).abs().mean((1, 2, 3)).max()


@pytest.mark.parametrize('k,low,high', [(0, 0, 3), (1, 0, 3), (2, 0, 3), (3, -0.5, 0.5)])
def test_each_operation_is_the_workers_and_torchvisions(photos, k, low, high):
    drawn = np.linspace(low, high, len(photos))
    factors = torch.ones(len(photos), 4, dtype=torch.float64)
    factors[:, k] = torch.from_numpy(drawn)
    order = torch.full((len(photos), 4), NONE)
    order[:, 1] = k
    ours = color_jitter(photos, factors, order)
    worker = one_by_one(photos, lambda img, row: WORKER[k](img, drawn[row]))
    assert difference(ours, worker) < 0.05
    name = ['brightness', 'contrast', 'saturation', 'hue'][k]
    for row, photo in enumerate(photos):
        image = Image.fromarray(photo.permute(1, 2, 0).numpy())
        theirs = np.asarray(getattr(F, f'adjust_{name}')(image, drawn[row]))
        theirs = torch.from_numpy(theirs.copy()).permute(2, 0, 1)
        assert difference(ours[row : row + 1], theirs[None]) < 0.5


def test_each_image_has_its_own_factors_and_one_of_24_orders(photos):
    generator = torch.Generator().manual_seed(0)
    factors = 0.2 + 1.6 * torch.rand(24, 4, generator=generator, dtype=torch.float64)
    factors[:, 3] = (factors[:, 3] - 1) / 4
    order = torch.tensor(list(permutations(range(4))))

    def worker(img, row):
        for k in order[row].tolist():
            img = WORKER[k](img, float(factors[row, k]))
        return img

    before = photos.clone()
    ours = color_jitter(photos, factors, order)
    assert difference(ours, one_by_one(photos, worker)) < 0.05
    assert torch.equal(photos, before)
    reordered = color_jitter(photos, factors, order.flip(1))
    assert difference(ours, reordered) > 1


def test_an_image_does_not_depend_on_its_batch(photos):
    factors = torch.rand(24, 4) + 0.5
    factors[:, 3] = 0.2
    order = torch.tensor(list(permutations(range(4))))
    ours = color_jitter(photos, factors, order)
    for row in (0, 7, 23):
        alone = color_jitter(photos[row : row + 1], factors[row : row + 1], order[row : row + 1])
        assert torch.equal(alone[0], ours[row])


def test_no_operation_changes_nothing(photos):
    order = torch.full((24, 4), NONE)
    assert torch.equal(color_jitter(photos, torch.zeros(24, 4), order), photos)
    order[::2, 2] = 0  # some images darkened, the others as they were
    mixed = color_jitter(photos, torch.zeros(24, 4), order)
    assert torch.equal(mixed[1::2], photos[1::2])
    assert (mixed[::2] == 0).all()


def test_numbers_by_hand():
    image = torch.tensor([201, 100, 10], dtype=torch.uint8).view(1, 3, 1, 1)

    def jittered(k, factor):
        factors = torch.ones(1, 4)
        factors[0, k] = factor
        order = torch.tensor([[k, NONE, NONE, NONE]])
        return color_jitter(image, factors, order).flatten().tolist()

    assert jittered(0, 1.5) == [255, 150, 15]
    # Luma 0.299 * 201 + 0.587 * 100 + 0.114 * 10 = 119.9, as a whole number 120.
    assert luma(image).item() == 120
    assert grayscale(image).flatten().tolist() == [120, 120, 120]
    assert jittered(1, 1.5) == [241, 90, 0]  # 241.5 cut off, -45 clipped
    assert jittered(2, 0.5) == [160, 110, 65]
    turned = jittered(3, 1 / 3)  # red to green
    assert np.argmax(turned) == 1 and max(turned) == 201


def test_gray_is_the_workers(photos):
    worker = one_by_one(photos, lambda img, row: to_gray(img))
    assert difference(grayscale(photos), worker) < 0.01
