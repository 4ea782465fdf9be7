"""Configs out of checkpoints are data, whatever they try to be."""

import resource
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import ResNet

import simclr_mm
from simclr_mm.apis import load_encoder
from simclr_mm.checkpoints.stored_config import stored_config
from simclr_mm.errors import CheckpointError

pytestmark = pytest.mark.portable
CONFIGS = Path(simclr_mm.__file__).parents[1] / 'configs'
MODEL = "model = dict(type='simclr_mm.SimCLR', backbone=dict(type='ResNet'))\n"


@pytest.mark.parametrize(
    'name',
    [
        'simclr_r50_16xb256-coslr-200e_in1k',
        'simclr_r18-w16_1xb64-coslr-30e_digits',
        'avgsimclr_r18_1xb256-adam-100e_cifar10',
        'benchmarks/r50_8xb512-linear-coslr-90e_in1k',
    ],
)
def test_what_mmengine_writes_is_read_back(name):
    config = Config.fromfile(CONFIGS / f'{name}.py')
    assert stored_config(config.pretty_text, 'a.pth').to_dict() == config.to_dict()


def test_keys_that_are_no_names():
    text = MODEL + "paramwise_cfg = dict(custom_keys={'a.b': dict(x=-1.5)}, n=None)"
    assert stored_config(text, 'a.pth').paramwise_cfg.custom_keys['a.b'].x == -1.5


@pytest.mark.parametrize(
    'text',
    [
        "__import__('os').system('touch {file}')",
        "a = __import__('os').system('touch {file}')",
        "a = dict(b=open('{file}', 'w'))",
        "a = dict(*[open('{file}', 'w')])",
        "a = [x for x in [open('{file}', 'w')]]",
        'a = f\'{{open("{file}", "w")}}\'',
        "import os\nos.system('touch {file}')",
        'def f(): pass',
        'a = (',
        'a = ' + '(' * 5000,
        'a, b = 1, 2',
        'a = dict(**dict(b=1))',
    ],
)
def test_code_is_refused_and_not_run(tmp_path, text):
    file = tmp_path / 'ran'
    with pytest.raises(CheckpointError, match='^a.pth: the stored config is no list'):
        stored_config(MODEL + text.format(file=file), 'a.pth')
    assert not file.exists()


@pytest.mark.parametrize(
    'part',
    [
        "model['type'] = 'os.system'",
        "model = dict(type='os.system', command='true')",
        "model = dict(type='SimCLR', neck=[dict(type='subprocess.call', args='true')])",
        "model = dict(type='mmengine.load', file='a.pkl')",
        "model = dict(type='simclr_mm.apis.get_model')",
        "model = dict(type='TIMMBackbone', model_name='resnet18')",
        "model = dict(type='ResNet', _scope_='evil')",
        "model = dict(type='mmpretrain.models.backbones.os.system')",
        "model = dict(type='mmpretrain.models.backbones.resnet.os')",
        "model = dict(type='mmengine.fileio.io.load', file='a.pkl')",
        "model = dict(type='torch.hub.load', repo_or_dir='a/b')",
        'model = dict(type=7)',
        "data_preprocessor = dict(type='os.getcwd')",
        "test_dataloader = dict(dataset=dict(pipeline=[dict(type='os.remove', path='a')]))",
    ],
)
def test_names_that_are_no_models_are_refused(part):
    with pytest.raises(CheckpointError, match='^a.pth: the stored config'):
        stored_config(MODEL + part, 'a.pth')


@pytest.mark.parametrize(
    'named, registered',
    [
        ('mmpretrain.models.backbones.resnet.ResNet', 'mmpretrain.ResNet'),
        ('mmpretrain.models.backbones.ResNet', 'mmpretrain.ResNet'),
        ('torch.nn.modules.batchnorm.BatchNorm2d', 'BN'),
        ('simclr_mm.models.projection_neck.ProjectionNeck', 'simclr_mm.ProjectionNeck'),
    ],
)
def test_a_module_path_of_a_registered_class(named, registered):
    text = f"model = dict(type='simclr_mm.SimCLR', backbone=dict(type='{named}'))"
    assert stored_config(text, 'a.pth').model.backbone.type == registered


def test_a_dumped_new_style_config_is_built(tmp_path):
    named = 'mmpretrain.models.backbones.resnet.ResNet'
    text = (
        "model = dict(type='simclr_mm.models.simclr.SimCLR', neck=None,"
        f" backbone=dict(type='{named}', depth=18))\n"
    )
    torch.save(dict(state_dict=ResNet(18).state_dict(), meta=dict(cfg=text)), tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth')
    loaded['state_dict'] = {f'backbone.{k}': v for k, v in loaded['state_dict'].items()}
    torch.save(loaded, tmp_path / 'a.pth')
    model = load_encoder(tmp_path / 'a.pth').model
    assert type(model.backbone) is ResNet and model.backbone.depth == 18


def test_no_module_is_imported_because_a_file_names_it(tmp_path, monkeypatch):
    (tmp_path / 'named_by_a_file.py').write_text('from mmpretrain.models import ResNet')
    monkeypatch.syspath_prepend(tmp_path)
    for named in ('named_by_a_file.ResNet', 'mmpretrain.models.backbones.evil.ResNet'):
        with pytest.raises(CheckpointError, match='no class of OpenMMLab'):
            stored_config(MODEL + f"model = dict(type='{named}')", 'a.pth')
    assert 'named_by_a_file' not in sys.modules


@pytest.mark.parametrize(
    'text',
    ['a = [' + '0,' * 15_000_000 + ']', "text = 'a reserved key'", f'a = {2**61}'],
    ids=['30 MB', 'reserved', 'large number'],
)
def test_what_would_take_long_or_break_is_refused(text):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match='^a.pth: the stored config .* not read'):
        stored_config(MODEL + text, 'a.pth')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize(
    'meta',
    [
        'text',
        [1],
        dict(cfg=5),
        dict(cfg='a = 1'),
        dict(cfg='model = 3'),
        dict(cfg=MODEL + 'test_dataloader = 4'),
        dict(cfg=MODEL + "test_dataloader = dict(dataset=dict(pipeline=['Resize']))"),
        dict(cfg='model = dict(a=1)'),
        dict(cfg="model = dict(type='simclr_mm.SimCLR')"),
        dict(cfg=MODEL),
    ],
)
def test_damaged_meta_ends_in_one_error(meta, tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict={'a': torch.zeros(1)}, meta=meta), path)
    with pytest.raises(CheckpointError, match='a.pth.*--config'):
        load_encoder(path)
