"""Pixels against torchvision on PIL images, parameters against their distributions."""

from itertools import permutations

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats
from torchvision.transforms import functional as F

from simclr_mm.transforms import ColorDistortion, ColorJitter, RandomGrayscale
from simclr_mm.transforms.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    to_gray,
)


@pytest.fixture(scope='module')
def photos(imagenet_sample):
    files = sorted(imagenet_sample.glob('train/*/*.JPEG'))[:8]
    images = [cv2.imread(str(file)) for file in files]
    return [cv2.resize(img, (224, 224), interpolation=cv2.INTER_AREA) for img in images]


def difference(photos, ours, theirs):
    """Mean absolute difference in grey levels, of the worst photograph."""
    worst = 0
    for img in photos:
        image = Image.fromarray(cv2.cvtColor(img, cv2.COLOR_BGR2RGB))
        expected = cv2.cvtColor(np.asarray(theirs(image)), cv2.COLOR_RGB2BGR)
        worst = max(worst, np.abs(ours(img).astype(int) - expected).mean())
    return worst


FACTORS = [0.0, 0.2, 0.5, 0.93, 1.0, 1.27, 1.8, 3.0]


@pytest.mark.portable
@pytest.mark.parametrize('factor', FACTORS)
@pytest.mark.parametrize(
    'ours,theirs',
    [
        (adjust_brightness, F.adjust_brightness),
        (adjust_contrast, F.adjust_contrast),
        (adjust_saturation, F.adjust_saturation),
    ],
)
def test_factor_gives_torchvisions_pixels(photos, ours, theirs, factor):
    assert difference(photos, lambda img: ours(img, factor), lambda img: theirs(img, factor)) < 0.02


@pytest.mark.portable
@pytest.mark.parametrize('factor', [-0.5, -0.2, -0.1, -0.003, 0, 0.003, 0.07, 0.2, 0.5])
def test_hue_gives_torchvisions_pixels(photos, factor):
    # Both round hue, saturation and value to 8 bits, PIL down, OpenCV to the nearest.
    assert (
        difference(
            photos, lambda img: adjust_hue(img, factor), lambda img: F.adjust_hue(img, factor)
        )
        < 0.5
    )


@pytest.mark.portable
def test_gray_gives_torchvisions_pixels(photos):
    assert difference(photos, to_gray, lambda img: F.to_grayscale(img, 3)) < 0.01


def test_numbers_by_hand():
    img = np.array([[[10, 100, 201]]], np.uint8)  # blue 10, green 100, red 201
    assert adjust_brightness(img, 0.5).tolist() == [[[5, 50, 100]]]
    assert adjust_brightness(img, 1.5).tolist() == [[[15, 150, 255]]]
    # Luma 0.114 * 10 + 0.587 * 100 + 0.299 * 201 = 119.9, as a whole number 120.
    assert to_gray(img).tolist() == [[[120, 120, 120]]]
    assert adjust_contrast(img, 0).tolist() == [[[120, 120, 120]]]
    assert adjust_contrast(img, 1.5).tolist() == [[[0, 90, 241]]]  # 241.5 cut off
    assert adjust_saturation(img, 0.5).tolist() == [[[65, 110, 160]]]
    red = np.array([[[0, 0, 255]]], np.uint8)
    assert to_gray(red).tolist() == [[[76, 76, 76]]]  # 0.299 * 255, not 0.114 * 255
    green = adjust_hue(red, 1 / 3)[0, 0]
    assert green.argmax() == 1 and green[1] == 255 and green[[0, 2]].max() < 8


def test_the_image_handed_in_is_not_written_to(photos):
    img = photos[0].copy()
    for function in (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue):
        function(img, 0.3)
    to_gray(img)
    assert np.array_equal(img, photos[0])


def sample(transform, count=6000):
    rng = np.random.default_rng(0)
    records = []
    for _ in range(count):
        params = {}
        transform(dict(img=IMG, rng=rng, view_params_one=params))
        records.append(params)
    return records


IMG = np.full((2, 2, 3), (10, 100, 200), np.uint8)


def test_order_is_uniform_over_all_permutations():
    records = sample(ColorJitter(0.8, 0.8, 0.8, 0.2))
    orders = [tuple(record['ColorJitter']) for record in records]
    names = ('brightness', 'contrast', 'saturation', 'hue')
    counts = [orders.count(order) for order in permutations(names)]
    assert sum(counts) == len(records)
    assert stats.chisquare(counts).pvalue > 0.01


def test_rates_and_factor_ranges_of_color_distortion():
    records = sample(ColorDistortion(strength=1.0, jitter_prob=0.8, gray_prob=0.2))
    jitter = [r['ColorJitter'] for r in records if r['ColorJitter'] is not None]
    gray = [r for r in records if r['RandomGrayscale'] is not None]
    n = len(records)
    assert stats.binomtest(len(jitter), n, 0.8).pvalue > 0.01
    assert stats.binomtest(len(gray), n, 0.2).pvalue > 0.01
    both = [r for r in gray if r['ColorJitter'] is not None]
    assert stats.binomtest(len(both), len(gray), 0.8).pvalue > 0.01  # independent
    for name, low, width in (
        ('brightness', 0.2, 1.6),
        ('contrast', 0.2, 1.6),
        ('saturation', 0.2, 1.6),
        ('hue', -0.2, 0.4),
    ):
        values = [params[name] for params in jitter]
        assert stats.kstest(values, 'uniform', (low, width)).pvalue > 0.01, name


def test_strength_scales_all_ranges_and_factors_stay_positive():
    half = sample(ColorDistortion(strength=0.5, jitter_prob=1), 2000)
    hue = [r['ColorJitter']['hue'] for r in half]
    contrast = [r['ColorJitter']['contrast'] for r in half]
    assert stats.kstest(hue, 'uniform', (-0.1, 0.2)).pvalue > 0.01
    assert stats.kstest(contrast, 'uniform', (0.6, 0.8)).pvalue > 0.01
    double = sample(ColorDistortion(strength=2, jitter_prob=1), 2000)
    brightness = [r['ColorJitter']['brightness'] for r in double]
    assert stats.kstest(brightness, 'uniform', (0, 2.6)).pvalue > 0.01


def test_strength_zero_changes_nothing(photos):
    transform = ColorDistortion(strength=0, jitter_prob=1, gray_prob=0)
    result = transform(dict(img=photos[0], rng=np.random.default_rng(0)))
    assert np.array_equal(result['img'], photos[0])


@pytest.mark.parametrize(
    'build,message',
    [
        (lambda: ColorDistortion(strength=-1), r'strength must be .* got -1: write 1.0'),
        (lambda: ColorDistortion(strength=2.6), 'strength must be .* got 2.6'),
        (lambda: ColorDistortion(jitter_prob=1.2), 'jitter_prob must be .* got 1.2'),
        (lambda: ColorDistortion(gray_prob=-0.1), 'gray_prob must be .* got -0.1'),
        (lambda: ColorJitter(0.4, -0.4, 0.4, 0.1), 'contrast must be >= 0, got -0.4'),
        (lambda: ColorJitter(0.4, 0.4, 0.4, 0.6), 'hue must be in .* got 0.6: write'),
        (lambda: RandomGrayscale(2), 'RandomGrayscale: prob must be .* got 2'),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
