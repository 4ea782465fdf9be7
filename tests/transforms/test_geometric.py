"""The composition study's other augmentations against plain calculations."""

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from simclr_mm.transforms import RandomCutout, RandomGaussianNoise, RandomRotation, RandomSobel
from simclr_mm.transforms.geometric import rotate, sobel


def run(transform, img, seed=0):
    params = {}
    rng = np.random.default_rng(seed)
    results = transform(dict(img=img, rng=rng, view_params_one=params))
    return results['img'], params[type(transform).__name__]


@pytest.fixture(scope='module')
def photo(imagenet_sample):
    file = sorted(imagenet_sample.glob('train/*/*.JPEG'))[0]
    return cv2.resize(cv2.imread(str(file)), (96, 96), interpolation=cv2.INTER_AREA)


@pytest.mark.portable
def test_quarter_turns_are_exact_and_equally_likely(photo):
    counts = {0: 0, 90: 0, 180: 0, 270: 0}
    for seed in range(800):
        rotated, params = run(RandomRotation(), photo, seed)
        assert np.array_equal(rotated, np.rot90(photo, params['degrees'] // 90))
        counts[params['degrees']] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_quarter_turn_outside_two_views_tells_the_new_shape():
    shapes = set()
    for seed in range(20):
        results = dict(
            img=np.zeros((4, 6, 3), np.uint8), img_shape=(4, 6), rng=np.random.default_rng(seed)
        )
        results = RandomRotation()(results)
        assert results['img_shape'] == results['img'].shape[:2]
        shapes.add(results['img_shape'])
    assert shapes == {(4, 6), (6, 4)}


@pytest.mark.portable
@pytest.mark.parametrize('degrees', [-30, -3.5, 10, 90, 145])
def test_any_angle_turns_as_torchvision_does(photo, degrees):
    ours = rotate(photo, degrees)
    theirs = F.rotate(Image.fromarray(photo), degrees, InterpolationMode.BILINEAR)
    # Only inside: torchvision fills what comes from beyond the border with black.
    y, x = np.mgrid[:96, :96] - 47.5
    inside = np.hypot(x, y) < 46
    difference = np.abs(ours.astype(int) - np.asarray(theirs))[inside]
    # OpenCV 4 takes the nearest of 32 places between two pixels, OpenCV 5 all.
    assert difference.mean() < 0.25


def test_border_is_repeated():
    img = np.full((32, 32, 3), 200, np.uint8)
    assert (rotate(img, 30) == 200).all()


def test_angle_is_uniform(photo):
    small = photo[:4, :4]
    angles = [run(RandomRotation(15), small, seed)[1]['degrees'] for seed in range(1500)]
    assert stats.kstest(angles, 'uniform', (-15, 30)).pvalue > 0.01
    rotated, params = run(RandomRotation(15), photo)
    assert np.array_equal(rotated, rotate(photo, params['degrees']))


def test_cutout_paints_the_recorded_square_only():
    img = np.random.default_rng(0).integers(0, 100, (20, 30, 3)).astype(np.uint8)
    before = img.copy()
    tops, lefts = [], []
    for seed in range(1500):
        cut, params = run(RandomCutout(ratio=0.3), img, seed)
        expected = before.copy()
        for y in range(params['top'], params['top'] + 6):
            for x in range(params['left'], params['left'] + 6):
                if 0 <= y < 20 and 0 <= x < 30:
                    expected[y, x] = 128
        assert np.array_equal(cut, expected)
        tops.append(params['top'])
        lefts.append(params['left'])
    assert np.array_equal(img, before)
    # The centre, three pixels below the top, is uniform over all rows and columns.
    assert stats.chisquare(np.bincount(np.add(tops, 3), minlength=20)).pvalue > 0.01
    assert stats.chisquare(np.bincount(np.add(lefts, 3), minlength=30)).pvalue > 0.01


def test_sobel_is_a_quarter_of_the_gradient():
    img = np.random.default_rng(0).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    weights = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    padded = np.pad(img.astype(float), ((1, 1), (1, 1), (0, 0)), mode='reflect')
    expected = np.empty(img.shape)
    for y in range(6):
        for x in range(7):
            for c in range(3):
                window = padded[y : y + 3, x : x + 3, c]
                dx, dy = (weights * window).sum(), (weights.T * window).sum()
                expected[y, x, c] = min(255, np.hypot(dx, dy))
    edges, _ = run(RandomSobel(), img)
    assert np.abs(edges - expected).max() <= 0.5 + 1e-3


def test_sobel_of_a_step_and_of_nothing():
    img = np.zeros((8, 8, 3), np.uint8)
    assert (sobel(img) == 0).all()
    img[:, 4:] = 255
    assert (sobel(img)[:, 3:5] == 255).all()
    assert (sobel(img)[:, [0, 1, 2, 5, 6, 7]] == 0).all()


def test_noise_is_normal_with_the_recorded_deviation():
    img = np.full((100, 100, 3), 128, np.uint8)
    for seed in range(5):
        noisy, params = run(RandomGaussianNoise(std=(5, 25)), img, seed)
        z = (noisy.astype(float) - 128) / params['std']  # (100, 100, 3)
        assert abs(z.mean()) < 4 / np.sqrt(z.size)
        assert abs(z.std() - 1) < 0.02
        assert abs(stats.kurtosis(z, axis=None)) < 0.15
        assert abs(np.corrcoef(z[..., 0].ravel(), z[..., 1].ravel())[0, 1]) < 0.04


def test_noise_clips_and_its_deviation_is_uniform():
    img = np.tile(np.array([0, 128, 255], np.uint8), (50, 50, 1))
    noisy, _ = run(RandomGaussianNoise(std=(30, 30)), img)
    for channel, clipped in ((0, 0), (2, 255)):
        share = (noisy[..., channel] == clipped).mean()
        assert 0.45 < share < 0.57  # half the noise points outwards
    stds = [
        run(RandomGaussianNoise(std=(0, 10)), img[:1, :1], seed)[1]['std'] for seed in range(1000)
    ]
    assert stats.kstest(stds, 'uniform', (0, 10)).pvalue > 0.01


@pytest.mark.parametrize(
    'build,message',
    [
        (lambda: RandomRotation(degrees=0), 'degrees must be .* got 0: write None'),
        (lambda: RandomRotation(degrees=181), 'degrees must be'),
        (lambda: RandomCutout(ratio=0), 'ratio must be .* got 0: write'),
        (lambda: RandomCutout(ratio=1.1), 'ratio must be'),
        (lambda: RandomSobel(prob=3), 'RandomSobel: prob must be .* got 3'),
        (lambda: RandomGaussianNoise(std=10), r'std must be a pair .* write std=\(0, 25'),
        (lambda: RandomGaussianNoise(std=(-1, 2)), 'std must be a pair'),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_edges_do_not_depend_on_where_an_image_lies():
    """cv2.magnitude rounds halves by the alignment of its memory."""
    images = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), np.uint8)
    for img in images:
        expected = sobel(img)
        for offset in range(0, 64, 4):
            memory = np.empty(img.size + 64, np.uint8)
            moved = memory[offset : offset + img.size].reshape(img.shape)
            moved[:] = img
            assert np.array_equal(sobel(moved), expected)
