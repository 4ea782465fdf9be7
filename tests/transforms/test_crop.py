"""Boxes against torchvision's distribution, pixels against PIL's resize."""

import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

from simclr_mm.transforms.crop import resized_crop, sample_crop

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def draw(height, width, count, scale=SCALE, ratio=RATIO, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([sample_crop(height, width, scale, ratio, rng) for _ in range(count)])


@pytest.fixture(scope='module')
def photos(imagenet_sample):
    files = sorted(imagenet_sample.glob('train/*/*.JPEG'))[:8]
    return [cv2.imread(str(file)) for file in files]


@pytest.mark.portable
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [224, 32])
def test_pixels_are_those_of_torchvision_on_pil(photos, interpolation, size):
    rng = np.random.default_rng(0)
    enlarged, shrunk, one_of_each = [0], [], [0]
    for img in photos:
        image = Image.fromarray(cv2.cvtColor(img, cv2.COLOR_BGR2RGB))
        for _ in range(4):
            box = sample_crop(*img.shape[:2], SCALE, RATIO, rng)
            ours = resized_crop(img, box, size, interpolation)
            theirs = F.resized_crop(image, *box, [size, size], InterpolationMode(interpolation))
            theirs = cv2.cvtColor(np.asarray(theirs), cv2.COLOR_RGB2BGR)
            kind = (
                enlarged
                if max(box[2:]) <= size
                else shrunk
                if min(box[2:]) >= size
                else one_of_each
            )
            kind.append(np.abs(ours.astype(int) - theirs).mean())
    assert np.median(shrunk) < 0.02 and max(shrunk) < 0.5  # grey levels
    assert max(enlarged) < 0.3 and max(one_of_each) < 0.3


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('box', [(3, 5, 300, 260), (3, 5, 100, 120), (3, 5, 300, 120)])
def test_a_flip_mirrors_the_crop(photos, box, interpolation):
    plain = resized_crop(photos[0], box, 224, interpolation)
    flipped = resized_crop(photos[0], box, 224, interpolation, flip=True)
    assert np.array_equal(flipped, plain[:, ::-1])


def test_crop_leaves_the_image_alone_and_accepts_any_memory_order(photos):
    img = photos[0]
    before = img.copy()
    expected = resized_crop(img, (10, 20, 100, 120), 64)
    expected[:] = 0  # a new array, not a window
    assert np.array_equal(img, before)
    read_only = np.frombuffer(img.tobytes(), np.uint8).reshape(img.shape)
    planes = np.ascontiguousarray(img.transpose(2, 0, 1)).transpose(1, 2, 0)
    reversed_rgb = np.ascontiguousarray(img[..., ::-1])[..., ::-1]
    expected = resized_crop(img, (10, 20, 100, 120), 64)
    for same in (read_only, planes, reversed_rgb):
        for flip, view in ((False, expected), (True, expected[:, ::-1])):
            made = resized_crop(same, (10, 20, 100, 120), 64, flip=flip)
            assert np.array_equal(made, view)


def test_same_size_is_a_copy(photos):
    img = photos[0]
    assert np.array_equal(resized_crop(img, (3, 4, 32, 32), 32), img[3:35, 4:36])


def test_area_is_uniform_and_ratio_log_uniform():
    # Up to 56 % of a 375 x 500 image every ratio fits: 0.5625 * 375 * 500 / 0.75 =
    # 375 ** 2. Larger pictures of the same shape round less.
    top, left, h, w = draw(3750, 5000, 4000, scale=(0.08, 0.56)).T
    area = h * w / (3750 * 5000)
    assert stats.kstest(area, 'uniform', (0.08, 0.48)).pvalue > 0.01
    log_ratio = np.log(w / h)
    uniform = (math.log(3 / 4), math.log(4 / 3) - math.log(3 / 4))
    assert stats.kstest(log_ratio, 'uniform', uniform).pvalue > 0.01
    assert abs(np.corrcoef(area, log_ratio)[0, 1]) < 0.05


def test_position_is_uniform():
    top, left, h, w = draw(3750, 5000, 4000).T
    rng = np.random.default_rng(1)  # spreads each whole pixel over its width
    for start, room in ((top, 3750 - h), (left, 5000 - w)):
        share = (start + rng.random(len(start))) / (room + 1)
        assert stats.kstest(share, 'uniform').pvalue > 0.01


@pytest.mark.parametrize('height,width', [(375, 500), (500, 333), (400, 400), (32, 32)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, SCALE, RATIO) for _ in range(3000)])
    ours = draw(height, width, 3000)
    for column in range(4):
        p = stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue
        assert p > 0.01, ('top', 'left', 'height', 'width')[column]
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 0.01


@pytest.mark.parametrize('height,width', [(10, 1000), (1000, 10), (1, 7), (7, 1)])
def test_fallback_is_torchvisions(height, width):
    image = torch.empty(3, height, width)
    # No box with half the area and such a ratio fits: all ten tries fail.
    theirs = RandomResizedCrop.get_params(image, [0.5, 1.0], list(RATIO))
    ours = draw(height, width, 1, scale=(0.5, 1.0))[0]
    assert tuple(ours) == tuple(theirs)


def test_fallback_is_never_empty():
    assert draw(3, 1, 1, scale=(1, 1), ratio=(3, 4)).tolist() == [[1, 0, 1, 1]]
