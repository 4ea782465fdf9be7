import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image

from simclr_mm.datasets import GalleryAndQuery, class_balanced_subset
from simclr_mm.errors import UserError
from simclr_mm.transforms import UnreadableImage

PIPELINE = [dict(type='PackInputs')]


def digits(per_class=None, pipeline=PIPELINE):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return GalleryAndQuery(
            gallery=dict(type='simclr_mm.Digits', split='train'),
            query=dict(type='simclr_mm.Digits', split='test'),
            pipeline=pipeline,
            gallery_per_class=per_class,
        )


def test_gallery_comes_first_and_says_so():
    data = digits()
    assert len(data) == 1797
    assert data[1296]['data_samples'].gallery is True
    assert data[1297]['data_samples'].gallery is False


def test_a_pipeline_without_data_samples_is_named():
    with pytest.raises(UserError, match="pipeline makes no data sample .*type='PackInputs'"):
        digits(pipeline=[dict(type='Resize', scale=16)])[0]


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
    with pytest.raises(ValueError, match='per_class = 3: class 1 has 2 images'):
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
            pipeline=[dict(type='simclr_mm.LoadImageFromFile'), *PIPELINE],
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


def test_a_dropped_gallery_image_is_replaced_by_its_class_a_query_by_none():
    def every_third(results):
        return None if results['sample_idx'] % 3 == 0 else results

    data = digits(pipeline=[every_third, *PIPELINE])
    labels = [int(data[i]['data_samples'].gt_label) for i in range(12)]
    assert labels == [int(digits()[i]['data_samples'].gt_label) for i in range(12)]
    with pytest.raises(UnreadableImage, match='a transform of the pipeline dropped the image'):
        data[1297]


def folders(tmp_path, names=('train', 'val'), classes='ab', loose=''):
    for split in names:
        for label, name in enumerate(classes):
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / name / '0.png'), np.full((4, 4, 3), 9 * label))
        if split == loose:
            cv2.imwrite(str(tmp_path / split / 'loose.png'), np.zeros((4, 4, 3)))
    return {
        part: dict(
            type='simclr_mm.InMemoryFolder', data_root=str(tmp_path / split), with_label=True
        )
        for part, split in zip(('gallery', 'query'), names)
    }


def test_an_image_without_a_label_is_named(tmp_path):
    data = folders(tmp_path, loose='train')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        with pytest.raises(UserError, match='GalleryAndQuery.gallery .*train/loose.png: put'):
            GalleryAndQuery(**data, pipeline=PIPELINE)


def test_the_classes_have_to_be_the_same(tmp_path):
    gallery = folders(tmp_path, names=('train', 'x'))['gallery']
    query = folders(tmp_path, names=('y', 'val'), classes='ac')['query']
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        with pytest.raises(UserError, match='gallery has 2 classes and query 2, b, c in one of'):
            GalleryAndQuery(gallery, query, PIPELINE)


def test_mmcvs_loading_is_used_as_written_with_a_warning(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'simclr_mm.datasets.gallery_query.print_log', lambda line, **kwargs: lines.append(line)
    )
    folders(tmp_path)
    parts = [
        dict(type='simclr_mm.ImageFolder', data_root=str(tmp_path / split), with_label=True)
        for split in ('train', 'val')
    ]
    for loading in ('LoadImageFromFile', 'simclr_mm.LoadImageFromFile'):
        pipeline = [dict(type=loading), *PIPELINE]
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            data = GalleryAndQuery(*parts, pipeline)
        assert int(data[1]['data_samples'].gt_label) == 1 and pipeline[0]['type'] == loading
        assert len(lines) == 1 and "mmcv's LoadImageFromFile" in lines[0]


def test_galleries_in_one():
    """A ConcatDataset has the labels of its parts, and no method of mmpretrain's."""
    part = dict(type='simclr_mm.Digits', split='test')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = GalleryAndQuery(
            gallery=dict(type='ConcatDataset', datasets=[part, part]),
            query=dict(type='simclr_mm.Digits', split='test'),
            pipeline=PIPELINE,
        )
    assert len(data) == 3 * 500
    labels = [int(data.query[i]['data_samples'].gt_label) for i in range(500)]
    assert data.labels.tolist() == labels * 2


def test_a_group_in_gallery_and_query_is_said(tmp_path, monkeypatch):
    for i in range(4):
        Image.new('RGB', (4, 4)).save(tmp_path / f'{i}.png')
    rows = [f'{i}.png,{i % 2},P{i // 2},{"train" if i != 3 else "val"}' for i in range(4)]
    (tmp_path / 'a.csv').write_text('\n'.join(['path,label,group,split', *rows]))
    warned = []
    monkeypatch.setattr(
        'simclr_mm.datasets.gallery_query.print_log', lambda text, **kwargs: warned.append(text)
    )
    part = dict(type='simclr_mm.ImageList', places=[str(tmp_path / 'a.csv')], with_label=True)
    loading = [dict(type='simclr_mm.LoadImageFromFile'), *PIPELINE]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        GalleryAndQuery(dict(part, split='train'), dict(part, split='val'), loading)
        assert len(warned) == 1 and '1 groups have images in gallery and query' in warned[0]
        share = dict(part, val_share=0.5)
        GalleryAndQuery(dict(share, split='train'), dict(share, split='val'), loading)
    assert len(warned) == 1
