import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from simclr_mm.datasets import GalleryAndQuery, class_balanced_subset
from simclr_mm.transforms import UnreadableImage

PIPELINE = [dict(type='PackInputs')]


def digits(per_class=None):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return GalleryAndQuery(
            gallery=dict(type='simclr_mm.Digits', split='train'),
            query=dict(type='simclr_mm.Digits', split='test'),
            pipeline=PIPELINE,
            gallery_per_class=per_class,
        )


def test_gallery_comes_first_and_says_so():
    data = digits()
    assert len(data) == 1797
    assert data[1296]['data_samples'].gallery is True
    assert data[1297]['data_samples'].gallery is False


def test_subset_is_balanced_and_fixed():
    data = digits(per_class=7)
    assert len(data) == 70 + 500
    assert data.metainfo['gallery_images'] == 70  # for KNNAccuracy to compare with its k
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


def test_an_unreadable_gallery_image_is_replaced_a_query_is_not(tmp_path):
    for split in ('train', 'val'):
        for label, name in enumerate('ab'):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                picture = np.full((4, 4, 3), 100 * label, np.uint8)
                cv2.imwrite(str(tmp_path / split / name / f'{i}.png'), picture)
    (tmp_path / 'train' / 'b' / '1.png').write_bytes(b'broken')
    (tmp_path / 'val' / 'a' / '0.png').write_bytes(b'broken')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = GalleryAndQuery(
            gallery=dict(type='CustomDataset', data_root=str(tmp_path / 'train')),
            query=dict(type='CustomDataset', data_root=str(tmp_path / 'val')),
            pipeline=[dict(type='LoadImageFromFile'), *PIPELINE],
        )
    stand_in = data[4]  # class b, image 1
    assert int(stand_in['data_samples'].gt_label) == 1
    assert int(stand_in['inputs'].max()) == 100
    with pytest.raises(UnreadableImage, match='0.png'):
        data[6]
    for i in (0, 2):
        (tmp_path / 'train' / 'b' / f'{i}.png').write_bytes(b'broken')
    with pytest.raises(UnreadableImage, match='no image of class 1 can be read'):
        data[4]
