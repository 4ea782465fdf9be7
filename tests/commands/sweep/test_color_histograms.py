"""Histograms of crops against plain counting."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from simclr_mm.commands.sweep.color_histograms import (
    BINS,
    crop_histograms,
    overlap_between,
    overlap_within,
)
from simclr_mm.datasets import Digits, SampleIndex
from simclr_mm.transforms import TwoViews

DIGITS = Path(__file__).parents[3] / 'configs/simclr_r18-w16_1xb64-coslr-30e_digits.py'


@pytest.fixture(scope='module')
def cfg():
    """Its views drawn one image at a time, as TwoViews alone does."""
    cfg = Config.fromfile(DIGITS)
    cfg.train_dataloader.dataset.batched = False
    return cfg


def test_counts_of_the_same_crops(cfg):
    histograms = crop_histograms(cfg, [4, 9], crops=3, seed=2)
    assert histograms.shape == (2, 2, 3, BINS)
    digits = Digits()
    color = dict(type='simclr_mm.ColorDistortion', strength=1.0)
    for row, image in enumerate((4, 9)):
        for kind, transforms in enumerate(([], [color])):
            crop = dict(num_views=3, scale=(0.4, 1.0), flip_prob=0.0)
            views = TwoViews(16, **crop, transforms=transforms)
            crops = views(dict(img=digits[image]['img'], sample_idx=SampleIndex(image, seed=2)))[
                'img'
            ]
            for crop, shares in zip(crops, histograms[row, kind]):
                expected = np.zeros(BINS)
                for value in crop.ravel().tolist():
                    expected[value // 8] += 1 / crop.size
                np.testing.assert_allclose(shares, expected, atol=1e-12)


def test_overlaps_by_hand():
    one = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0, 1]])
    assert overlap_within(one) == pytest.approx((0.5 + 0 + 0) / 3)
    two = np.array([[[1.0, 0], [0.5, 0.5]], [[0, 1.0], [0.75, 0.25]]])
    # 0 and 0.75 for the first crop, 0.5 and 0.75 for the second.
    assert overlap_between(two) == pytest.approx((0 + 0.75 + 0.5 + 0.75) / 4)


@pytest.mark.parametrize(
    'images, crops, message',
    [([0], 1, 'crops=1'), ([0, 5000], 2, 'image=5000'), ([-1], 2, 'image=-1')],
)
def test_bad_values(cfg, images, crops, message):
    with pytest.raises(ValueError, match=message):
        crop_histograms(cfg, images, crops)
