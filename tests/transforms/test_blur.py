"""Pixels against torchvision's blur, parameters against their distributions."""

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats
from torchvision.transforms import functional as F

from simclr_mm.transforms import RandomGaussianBlur
from simclr_mm.transforms.blur import gaussian_blur


@pytest.fixture(scope='module')
def photos(imagenet_sample):
    files = sorted(imagenet_sample.glob('train/*/*.JPEG'))[:3]
    return [cv2.resize(cv2.imread(str(file)), (224, 224)) for file in files]


@pytest.mark.portable
@pytest.mark.parametrize('kernel', [3, 9, 23])
@pytest.mark.parametrize('sigma', [0.1, 0.4, 1.0, 2.0])
def test_pixels_are_those_of_torchvision(photos, kernel, sigma):
    for img in photos:
        image = Image.fromarray(img)  # every channel alike: their order is no matter
        theirs = np.asarray(F.gaussian_blur(image, kernel, sigma)).astype(int)
        assert np.abs(gaussian_blur(img, kernel, sigma) - theirs).mean() < 0.02


def sample(transform, side, count):
    img = np.zeros((side, side, 3), np.uint8)
    rng = np.random.default_rng(0)
    records = []
    for _ in range(count):
        params = {}
        transform(dict(img=img, rng=rng, view_params_one=params))
        records.append(params['RandomGaussianBlur'])
    return records


def test_half_of_the_images_with_uniform_sigma():
    records = sample(RandomGaussianBlur(), 8, 4000)
    sigmas = [params['sigma'] for params in records if params is not None]
    assert stats.binomtest(len(sigmas), len(records), 0.5).pvalue > 0.01
    assert stats.kstest(sigmas, 'uniform', (0.1, 1.9)).pvalue > 0.01


@pytest.mark.parametrize(
    'side,kernel', [(224, 23), (230, 23), (96, 9), (128, 13), (32, 3), (16, 1)]
)
def test_kernel_is_a_tenth_of_the_side_made_odd(side, kernel):
    assert sample(RandomGaussianBlur(prob=1), side, 1)[0]['kernel'] == kernel
    assert sample(RandomGaussianBlur(1, kernel=5), side, 1)[0]['kernel'] == 5


@pytest.mark.parametrize(
    'kwargs,message',
    [
        (dict(prob=-1), 'prob must be .* got -1'),
        (dict(sigma=(0, 2)), r'sigma must be .* write sigma=\(0.1, 2'),
        (dict(sigma=(2, 1)), 'sigma must be a pair'),
        (dict(sigma=1.0), 'sigma must be a pair'),
        (dict(kernel=22), 'kernel must be an odd .* 22: write None'),
        (dict(kernel=0), 'kernel must be an odd'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RandomGaussianBlur(**kwargs)
