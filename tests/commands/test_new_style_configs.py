"""Configs that import classes, as MMEngine's new style has them, in the tools."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine import registry
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmpretrain import registry as mmpretrain_registry

from simclr_mm.commands import test as testing
from simclr_mm.commands import train

CONFIGS = Path(__file__).parents[2] / 'configs'
DIGITS = CONFIGS / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'
LINEAR_DIGITS = CONFIGS / 'benchmarks' / 'r18-w16_1xb256-linear-adam-100e_digits.py'
REGISTRIES = [
    each
    for module in (mmpretrain_registry, registry)
    for each in vars(module).values()
    if isinstance(each, Registry)
]
NAMES_ONLY = {'Constant', 'Pretrained', 'Linear'}  # of init_cfg


class Bare(str):
    """A name that is written without quotes."""

    __repr__ = str.__str__


def new_style(config, target):
    """Write a config again, each type as a class, split into a base and the config."""
    imports = {}

    def converted(value):
        if isinstance(value, (list, tuple)):
            return type(value)(map(converted, value))
        if not isinstance(value, dict):
            return value
        return {
            key: named(item) if key in ('type', 'runner_type') else converted(item)
            for key, item in value.items()
        }

    def named(name):
        if name in NAMES_ONLY:
            return name
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            cls = next(filter(None, (each.get(name) for each in REGISTRIES)))
        imports[cls.__name__] = cls.__module__
        return Bare(cls.__name__)

    content = converted(Config.fromfile(config).to_dict())
    lines = {key: f'{key} = {value!r}\n' for key, value in content.items()}
    head = ''.join(f'from {module} import {name}\n' for name, module in imports.items())
    model = lines.pop('model')
    target.with_name('base.py').write_text(head + ''.join(lines.values()))
    target.write_text(
        f'from mmengine.config import read_base\n{head}\n'
        f'with read_base():\n    from .base import *\n\n{model}'
    )
    return target


def short(work_dir, *more):
    # MMEngine names a run by its second; two of one second would share a log.
    name = '-'.join(work_dir.parts[-2:])
    return [
        *('--work-dir', str(work_dir), '--cfg-options', 'train_cfg.max_epochs=1'),
        f'experiment_name={name}',
        *('default_hooks.logger.interval=1', 'randomness.seed=1', *more),
    ]


PRETRAINING = (
    'param_scheduler=[]',
    'train_dataloader.dataset.indices=128',
    'train_dataloader.batch_size=32',
)


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """The work dir of a new-style digits config after an epoch of four steps."""
    root = tmp_path_factory.mktemp('new')
    config = new_style(DIGITS, root / 'digits.py')
    train.main([str(config), *short(root / 'work', *PRETRAINING)])
    return root


def losses(work_dir):
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    entries = map(json.loads, scalars.read_text().splitlines())
    return [entry['loss'] for entry in entries if 'loss' in entry]


def test_the_config_names_classes(pretrained):
    cfg = Config.fromfile(pretrained / 'digits.py')
    assert isinstance(cfg.model.type, type) and isinstance(cfg.runner_type, type)
    assert isinstance(cfg.train_dataloader.dataset.pipeline[0].type, type)


def test_training_is_that_of_the_config_with_names(pretrained, tmp_path):
    train.main([str(DIGITS), *short(tmp_path, *PRETRAINING)])
    assert losses(pretrained / 'work') == losses(tmp_path)
    assert len(losses(tmp_path)) == 4


def test_it_is_tested_and_the_result_written(pretrained, tmp_path):
    checkpoint = pretrained / 'work' / 'epoch_1.pth'
    testing.main([str(pretrained / 'digits.py'), str(checkpoint), '--work-dir', str(tmp_path)])
    (path,) = (tmp_path / 'evaluation').iterdir()
    first = json.loads(path.read_text())['results'][0]
    assert (first['dataset'], first['split'], first['metric']) == ('Digits', 'test', 'top1')
    assert first['protocol'] == 'knn' and first['settings']['k'] == 20


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('folders')
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in ('ant', 'bee'):
            (root / split / name).mkdir(parents=True)
            for i in range(8):
                picture = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                cv2.imwrite(str(root / split / name / f'{i}.webp'), picture)
    return root


def test_data_of_the_user(pretrained, folders, tmp_path):
    config = str(pretrained / 'digits.py')
    options = ('param_scheduler=[]', 'train_dataloader.batch_size=16')
    train.main([config, '--data', str(folders), *short(tmp_path, *options)])
    assert len(losses(tmp_path)) == 2  # 32 images
    data = ['--data', str(folders), '--work-dir', str(tmp_path)]
    data += ['--cfg-options', 'test_evaluator.k=3']
    testing.main([config, str(tmp_path / 'epoch_1.pth'), *data])
    (path,) = (tmp_path / 'evaluation').iterdir()
    assert json.loads(path.read_text())['results'][0]['protocol'] == 'knn'


def test_a_classifier(pretrained, folders, tmp_path):
    (tmp_path / 'linear').mkdir()
    config = str(new_style(LINEAR_DIGITS, tmp_path / 'linear' / 'config.py'))
    encoder = ['--pretrained', str(pretrained / 'work' / 'epoch_1.pth')]
    train.main([config, *encoder, *short(tmp_path / 'digits')])
    state = torch.load(tmp_path / 'digits' / 'epoch_1.pth', weights_only=False)['state_dict']
    before = torch.load(encoder[1], weights_only=False)['state_dict']
    assert torch.equal(state['backbone.conv1.weight'], before['backbone.conv1.weight'])
    train.main([config, *encoder, '--data', str(folders), *short(tmp_path / 'own')])
    checkpoint = str(tmp_path / 'own' / 'epoch_1.pth')
    data = ['--data', str(folders), '--work-dir', str(tmp_path / 'own')]
    testing.main([config, checkpoint, *data])
    (path,) = (tmp_path / 'own' / 'evaluation').iterdir()
    (result,) = json.loads(path.read_text())['results']
    assert (result['protocol'], result['metric']) == ('linear-published', 'top1')
