"""Features, classes and views for pictures."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import simclr_mm
from simclr_mm.apis import build_encoder
from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.commands.command_line.data_folder import train_on_folder
from simclr_mm.commands.embed.embed_folder import embed_folder
from simclr_mm.commands.evaluate import image_features
from simclr_mm.commands.evaluate.image_features import (
    embed_views,
    from_config,
    from_embedding,
    gallery_and_queries,
    training_set,
)
from simclr_mm.commands.pretrain.command import _first_folder
from simclr_mm.datasets import SampleIndex
from simclr_mm.errors import UserError

DIGITS = 'simclr_r18-w16_1xb64-coslr-30e_digits'


@pytest.fixture(scope='module')
def encoder():
    torch.manual_seed(0)
    return build_encoder(DIGITS)


def test_the_queries_of_a_config(encoder):
    data = from_config(encoder, most=30, seed=1)
    assert data.features.shape == (30, 128) and data.total == 500
    assert data.name == DIGITS and data.classes == [str(digit) for digit in range(10)]
    again = from_config(encoder, most=30, seed=1)
    np.testing.assert_array_equal(again.labels, data.labels)
    assert from_config(encoder, most=10**6).labels.shape == (500,)
    test_set = simclr_mm.datasets.Digits(split='test')
    rows = np.sort(np.random.default_rng(1).choice(500, 30, replace=False))
    assert data.labels.tolist() == [test_set[row]['gt_label'] for row in rows]


def test_a_gallery_and_its_queries(encoder):
    loader = copy.deepcopy(encoder.config.test_dataloader)
    loader.dataset.update(gallery_per_class=3)
    gallery, queries = gallery_and_queries(encoder, loader)
    assert gallery[0].shape == (30, 128) and queries[0].shape == (500, 128)
    assert np.bincount(gallery[1]).tolist() == [3] * 10
    test_set = simclr_mm.datasets.Digits(split='test')
    assert queries[1].tolist() == test_set.get_gt_labels().tolist()
    loader.dataset = dict(type='simclr_mm.Digits', split='test', pipeline=[])
    with pytest.raises(ValueError, match='test dataset is a Digits, without a gallery'):
        gallery_and_queries(encoder, loader)


def test_too_few_images_of_a_class_are_refused_before_the_work(encoder):
    settings = copy.deepcopy(encoder.config.test_dataloader)
    settings.dataset.gallery_per_class = 4
    with pytest.raises(UserError, match='5 images of each class are needed, .* has 4 of 0'):
        gallery_and_queries(encoder, settings, per_class=5)


def test_a_sweep_is_refused_before_the_work(encoder, monkeypatch):
    settings = copy.deepcopy(encoder.config.test_dataloader)
    settings.dataset.gallery_per_class = 4  # a fifth of 40 images are 8, for ten classes
    monkeypatch.setattr(image_features, 'cached_features', None)
    with pytest.raises(UserError, match='40 training images of 10 classes.*no --sweep'):
        gallery_and_queries(encoder, settings, sweep=True)


def test_images_without_labels_are_one_class(encoder, tmp_path):
    for i in range(3):
        Image.new('RGB', (20, 20)).save(tmp_path / f'{i}.png')
    cfg = copy.deepcopy(encoder.config)
    steps = [dict(type='LoadImageFromFile'), *cfg.test_dataloader.dataset.pipeline]
    cfg.test_dataloader.dataset = dict(
        type='simclr_mm.ImageFolder', data_root=str(tmp_path), pipeline=steps
    )
    data = from_config(build_encoder(cfg), most=10)
    assert (data.classes, data.labels.tolist()) == (['images'], [0, 0, 0])


def test_folders_are_the_classes(encoder, tmp_path):
    for k, name in enumerate(['x/a/0.png', 'x/b/1.png', 'x/b/2.png', '3.png']):
        (tmp_path / 'all' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8), (60 * k, 0, 0)).save(tmp_path / 'all' / name)
    (tmp_path / 'all' / 'x' / 'b' / '1.png').write_bytes(b'no image')
    embed_folder(FeatureInferencer(encoder), tmp_path / 'all', tmp_path / 'out')
    data = from_embedding(tmp_path / 'out', most=10)
    assert [data.classes[label] for label in data.labels] == ['all', 'a', 'b']
    assert data.name == 'all' and data.total == 4 and np.isfinite(data.features).all()
    assert len(from_embedding(tmp_path / 'out', most=2).features) <= 2
    first = from_embedding(tmp_path / 'out', most=10, class_of=_first_folder)
    assert [first.classes[label] for label in first.labels] == ['all', 'x', 'x']  # of the table


@pytest.mark.parametrize('views, epoch', [({}, 0), (dict(size=[8, 12, 20], milestones=[3, 5]), 5)])
def test_views_one_by_one(encoder, views, epoch):
    cfg = Config(encoder.config.to_dict())
    cfg.train_dataloader.dataset.pipeline[0].update(views)
    dataset = training_set(cfg)
    features, projections = embed_views(encoder, dataset, most=3, seed=4)
    rows = np.sort(np.random.default_rng(4).choice(len(dataset), 3, replace=False))
    with torch.no_grad():
        for i, row in enumerate(rows.tolist()):
            views = dataset[SampleIndex(row, 4, epoch)]['inputs']  # (V, 3, S, S)
            images = encoder.model.data_preprocessor(dict(inputs=views))['inputs']
            expected = encoder.model.extract_feat(images)
            np.testing.assert_allclose(features[i], expected, atol=1e-5)
            np.testing.assert_allclose(projections[i], encoder.model.neck(expected), atol=1e-4)
    without = build_encoder(DIGITS, neck=None, head=None)
    assert embed_views(without, dataset, most=2)[1] is None


def test_views_of_what_can_be_read(encoder, tmp_path):
    for name in 'abcd':
        Image.new('RGB', (20, 20), (ord(name), 9, 99)).save(tmp_path / f'{name}.png')
    cfg = Config(encoder.config.to_dict())
    train_on_folder(cfg, str(tmp_path))
    whole = embed_views(encoder, training_set(cfg), most=4)[0]
    (tmp_path / 'b.png').write_bytes(b'broken')
    np.testing.assert_array_equal(
        embed_views(encoder, training_set(cfg), most=4)[0], whole[[0, 2, 3]]
    )
    for name in 'ac':
        (tmp_path / f'{name}.png').write_bytes(b'broken')
    with pytest.raises(UserError, match='fewer than two'):
        embed_views(encoder, training_set(cfg), most=4)


def test_data_without_views(encoder):
    cfg = Config(dict(train_dataloader=encoder.config.test_dataloader))
    with pytest.raises(ValueError, match='no simclr_mm.TwoViews'):
        embed_views(encoder, training_set(cfg), most=2)
