"""Crops of a batch are those of torchvision on PIL images."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import hflip, resized_crop

from simclr_mm.transforms.batched.crop import resized_crops


@pytest.fixture(scope='module')
def photos(imagenet_sample):
    """(8, 160, 208, 3), cut out of photographs."""
    files = sorted(imagenet_sample.glob('train/*/*.JPEG'))
    photos = (np.asarray(Image.open(file).convert('RGB')) for file in files)
    return np.stack(
        [photo[:160, :208] for photo in photos if photo.shape[0] >= 160 and photo.shape[1] >= 208][
            :8
        ]
    )


def by_torchvision(image, box, flip, size, mode):
    top, left, height, width = (int(side) for side in box)
    crop = resized_crop(
        Image.fromarray(image), top, left, height, width, [size, size], InterpolationMode(mode)
    )
    return np.asarray(hflip(crop) if flip else crop)


def by_pil(image, box, flip, size, mode):
    """Rows before columns, whatever the shape; since Pillow 12 it may be otherwise."""
    top, left, height, width = (int(side) for side in box)
    crop = Image.fromarray(image[top : top + height, left : left + width])
    for shape in ((size, height), (size, size)):
        crop = crop.resize(shape, Image.Resampling[mode.upper()])
    return np.asarray(crop)[:, :: -1 if flip else 1]


def random_boxes(n, views, height, width):
    rng = np.random.default_rng(0)
    h = rng.integers(1, height + 1, (n, views))
    w = rng.integers(1, width + 1, (n, views))
    return np.stack(
        (rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w), -1
    ), rng.random((n, views)) < 0.5


@pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('shape,size', [((160, 208), 64), ((32, 32), 32), ((48, 33), 20)])
def test_crops_are_pils(photos, mode, shape, size):
    images = photos[:, 50 : 50 + shape[0], 60 : 60 + shape[1]] if shape[0] < 160 else photos
    boxes, flips = random_boxes(len(images), 6, *shape)
    boxes[:, 0] = 0, 0, *shape  # the whole image, too
    ours = resized_crops(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(boxes),
        torch.from_numpy(flips),
        size,
        mode,
    )
    assert ours.dtype == torch.uint8 and ours.shape == (48, 3, size, size)
    ours = ours.numpy().transpose(0, 2, 3, 1).astype(int)
    drawn = [
        (image, box, flip)
        for image, some, others in zip(images, boxes, flips)
        for box, flip in zip(some, others)
    ]
    differences = np.abs(ours - [by_pil(*each, size, mode) for each in drawn])
    # PIL weighs with whole numbers: they part where the result is a half.
    assert differences.max() <= 2 and differences.mean() < 0.02
    differences = np.abs(ours - [by_torchvision(*each, size, mode) for each in drawn])
    assert differences.mean() < 0.15  # the aim is 0.5


def test_by_hand():
    """Halving weighs four pixels 1, 3, 3, 1, fewer at the border of the box."""
    row = torch.tensor([[[[200, 8, 16, 24, 72, 100]]]], dtype=torch.uint8)
    images = row.expand(1, 3, 2, 6).contiguous()
    box = torch.tensor([[[0, 1, 2, 4]]])
    out = resized_crops(images, box, torch.tensor([[False]]), 2)
    # (3 * 8 + 3 * 16 + 24) / 7 = 13.7 and (16 + 3 * 24 + 3 * 72) / 7 = 43.4
    assert out[0, 0].tolist() == [[14, 43], [14, 43]]
    out = resized_crops(images, box, torch.tensor([[True]]), 2)
    assert out[0, 0].tolist() == [[43, 14], [43, 14]]
