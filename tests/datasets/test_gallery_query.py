import numpy as np
import pytest
from mmengine.registry import DefaultScope

from simclr_mm.datasets import GalleryAndQuery, class_balanced_subset

PIPELINE = [dict(type='PackInputs')]


def digits(per_class=None):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return GalleryAndQuery(
            gallery=dict(type='simclr_mm.Digits', split='train'),
            query=dict(type='simclr_mm.Digits', split='test'),
            pipeline=PIPELINE,
            gallery_per_class=per_class)


def test_gallery_comes_first_and_says_so():
    data = digits()
    assert len(data) == 1797
    assert data[1296]['data_samples'].gallery is True
    assert data[1297]['data_samples'].gallery is False


def test_subset_is_balanced_and_fixed():
    data = digits(per_class=7)
    assert len(data) == 70 + 500
    labels = [int(data[i]['data_samples'].gt_label) for i in range(70)]
    assert np.bincount(labels).tolist() == [7] * 10
    assert np.array_equal(data.rows, digits(per_class=7).rows)


def test_subset_draws_without_replacement_and_by_seed():
    labels = np.repeat([0, 1], 10)
    rows = class_balanced_subset(labels, 10, seed=0)
    assert rows.tolist() == list(range(20))
    draws = {tuple(class_balanced_subset(labels, 3, seed)) for seed in range(20)}
    assert len(draws) > 10


def test_too_few_images_of_a_class():
    with pytest.raises(ValueError, match='class 1 has 2 images, 3 of each'):
        class_balanced_subset(np.array([0, 0, 0, 1, 1]), 3, seed=0)
