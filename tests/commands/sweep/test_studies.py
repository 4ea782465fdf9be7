"""Every cell of every study is built, and is what the paper varies."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS

from simclr_mm.commands.sweep.cells import TRANSFORMATIONS
from simclr_mm.commands.sweep.runs import cell_config
from simclr_mm.commands.sweep.studies import STUDIES, values_of
from simclr_mm.datasets import SampleIndex

CONFIGS = Path(__file__).parents[3] / 'configs'
# Two sizes of each are as good as all, and quicker.
FEW = {'depth-width': dict(depth=[18, 50], width=[1, 2]), 'batch-epochs': dict(epochs=[40, 50])}


def cells(name, cfg, **asked):
    study = STUDIES[name]
    values = values_of(study, asked or FEW.get(name, {}))
    return {labels: cell_config(cfg, options) for labels, options in study.cells(cfg, *values)}


@pytest.fixture(scope='module')
def digits():
    """At 24 pixels: below 20 there is no blur."""
    cfg = Config.fromfile(CONFIGS / 'simclr_r18-w16_1xb64-coslr-30e_digits.py')
    cfg.train_dataloader.dataset.pipeline[0].size = 24
    return cfg


@pytest.fixture(scope='module')
def digit(digits):
    """(8, 8, 3), one image."""
    dataset = dict(digits.train_dataloader.dataset, pipeline=[], batched=False)
    return DATASETS.build(dataset)[3]['img']


@pytest.fixture(scope='module')
def recipe():
    return Config.fromfile(CONFIGS / 'simclr_r50_16xb256-coslr-200e_in1k.py')


def views_of(cfg, image, seed=0):
    """What the config's pipeline makes of an image."""
    results = dict(img=image, sample_idx=SampleIndex(3, seed=seed), img_shape=(8, 8))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for step in cfg.train_dataloader.dataset.pipeline:
            results = TRANSFORMS.build(step)(results)
    return results['inputs'].numpy()


@pytest.mark.parametrize('name', STUDIES)
def test_every_cell_is_built(name, digits, digit):
    every = cells(name, digits).values()
    for model_cfg in {str(cfg.model): cfg.model for cfg in every}.values():
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(model_cfg)
        assert model(torch.rand(2, 2, 3, 16, 16), mode='loss')['loss'].isfinite()
    for cfg in {str(cfg.train_dataloader): cfg for cfg in every}.values():
        assert views_of(cfg, digit).shape == (2, 3, 24, 24)


def test_the_papers_cells(recipe):
    """Fig. 5: 7 x 7; Fig. 8: two heads in 7 widths, and none; Table 5: 4 and 2."""
    every = {
        name: len(list(study.cells(recipe, *values_of(study, {}))))
        for name, study in STUDIES.items()
    }
    assert every == {
        'augmentations': 49,
        'color-strength': 5,
        'head': 15,
        'depth-width': 15,
        'batch-epochs': 60,
        'temperature': 6,
        'objective': 19,
        'lr-scaling': 12,
    }


def test_one_view_is_left_alone(digits, digit):
    """The studied transformations act on the second view only, in their order."""
    whole = cv2.resize(digit, (24, 24), interpolation=cv2.INTER_LINEAR)
    for (first, second), cfg in cells('augmentations', digits).items():
        plain, studied = cfg.train_dataloader.dataset.pipeline[0].transforms
        names = [first] if first == second else [first, second]
        assert plain == []
        assert [t.type for t in studied] == [TRANSFORMATIONS[n]['type'] for n in names]
        views = [views_of(cfg, digit, seed) for seed in range(4)]
        assert all(np.array_equal(v[0].transpose(1, 2, 0), whole) for v in views)
        # Some draw nothing now and then, such as a turn by 0 degrees.
        assert not all(np.array_equal(*v) for v in views)


def test_photographs_are_cropped_before_the_views(recipe):
    cfg = cells('augmentations', recipe, first='color', second='crop')['color', 'crop']
    types = [step.type.split('.')[-1] for step in cfg.train_dataloader.dataset.pipeline]
    assert types == ['LoadImageFromFile', 'RandomCropAndFlip', 'TwoViews', 'PackInputs']
    crop, views = cfg.train_dataloader.dataset.pipeline[1:3]
    assert crop.size == views.size == 224
    assert views.scale == views.ratio == (1.0, 1.0) and views.flip_prob == 0


def test_strengths(recipe):
    drawn = cells('color-strength', recipe)
    steps = {
        name: cfg.train_dataloader.dataset.pipeline[1].transforms for (name,), cfg in drawn.items()
    }
    assert [s[0].strength for s in steps.values()] == [0.125, 0.25, 0.5, 1, 1]
    assert [len(s) for s in steps.values()] == [1, 1, 1, 1, 2]


def test_heads(recipe):
    for (kind, width), cfg in cells('head', recipe).items():
        assert cfg.model.neck.num_layers == dict(none=0, linear=1, nonlinear=2)[kind]
        assert kind == 'none' or cfg.model.neck.out_channels == width


def test_widths_multiply_the_configs(digits):
    for (width, depth), cfg in cells('depth-width', digits).items():
        backbone = cfg.model.backbone
        assert (backbone.depth, backbone.base_channels) == (depth, 16 * width)
        assert backbone.stem_channels == 16 * width


def test_rates_of_the_paper(recipe):
    """Sec. 2.2 and B.1: 0.3 x batch / 256 and 0.075 x sqrt(batch)."""
    for (rule, batch), cfg in cells('lr-scaling', recipe).items():
        expected = 0.3 * batch / 256 if rule == 'linear' else 0.075 * batch**0.5
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(expected)
        assert cfg.train_dataloader.batch_size == batch
        # The runner compares with this: no warning of another batch.
        assert cfg.auto_scale_lr.base_batch_size == batch
    for (batch, epochs), cfg in cells('batch-epochs', recipe).items():
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.3 * batch / 256)
        assert cfg.train_cfg.max_epochs == cfg.train_cfg.val_interval == epochs


def test_temperatures_and_objectives(recipe):
    table = {
        key: (cfg.model.head.type, cfg.model.head.temperature)
        for key, cfg in cells('temperature', recipe).items()
    }
    xent, plain = 'simclr_mm.NTXentHead', 'simclr_mm.UnnormalizedXentHead'
    assert table == {
        ('l2-norm', 0.05): (xent, 0.05),
        ('l2-norm', 0.1): (xent, 0.1),
        ('l2-norm', 0.5): (xent, 0.5),
        ('l2-norm', 1): (xent, 1),
        ('no-norm', 10): (plain, 10),
        ('no-norm', 100): (plain, 100),
    }
    head = cells('objective', recipe)['triplet-semi-hard', 'm=0.4'].model.head
    assert head == dict(type='simclr_mm.MarginTripletHead', margin=0.4, semi_hard=True)


def test_values_that_were_asked_for():
    study = STUDIES['batch-epochs']
    assert values_of(study, dict(batch=64, epochs=[2, 4])) == [[64], [2, 4]]
    assert values_of(study, dict(batch=[64, 64], epochs=2)) == [[64], [2]]  # no run twice
    assert values_of(STUDIES['color-strength'], dict(strength=['1/8', 1])) == [['1/8', '1']]


@pytest.mark.parametrize(
    'name, asked, message',
    [
        ('head', dict(depth=18), 'axes of this study are head and width'),
        ('head', dict(head='deep'), 'choose from none, linear, nonlinear'),
        ('head', dict(width='wide'), 'width=wide: give whole numbers above 0'),
        ('head', dict(width=[8, 8.5]), 'width=8.5: give whole numbers above 0'),
        ('temperature', dict(temperature=[0.1, -1]), 'temperature=-1: give numbers above 0'),
        ('temperature', dict(temperature=float('inf')), 'temperature=inf: give numbers above 0'),
    ],
)
def test_values_that_are_not_there(name, asked, message):
    with pytest.raises(ValueError, match=message):
        values_of(STUDIES[name], asked)


def test_configs_that_do_not_fit(digits):
    bare = copy.deepcopy(digits)
    bare.train_dataloader.dataset.pipeline[0].size = 16
    for name in ('augmentations', 'color-strength'):
        with pytest.raises(ValueError, match='blur has no effect on views of 16 pixels'):
            cells(name, bare)
        growing = copy.deepcopy(bare)
        growing.train_dataloader.dataset.pipeline[0].update(size=[16, 32], milestones=[1])
        with pytest.raises(ValueError, match='blur has no effect on views of 16 pixels'):
            cells(name, growing)
    assert len(cells('color-strength', bare, strength=['1/8', '1'])) == 2
    bare.train_dataloader.dataset.pipeline = [dict(type='PackInputs')]
    with pytest.raises(ValueError, match='no simclr_mm.TwoViews'):
        cells('augmentations', bare)
    bare.model.backbone = dict(type='VisionTransformer')
    with pytest.raises(ValueError, match='varies model.backbone.depth, but'):
        cells('depth-width', bare)
    bare.train_cfg = dict(max_iters=10)
    with pytest.raises(ValueError, match='varies train_cfg.max_epochs, but'):
        cells('batch-epochs', bare)
