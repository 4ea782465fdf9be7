"""A backbone that timm built: from a training checkpoint to features, and back to timm."""

import numpy as np
import pytest
import torch
from helpers import CONFIGS
from helpers.models import shaken
from mmengine.config import Config

from simclr_mm import get_model
from simclr_mm.apis import load_encoder
from simclr_mm.commands.export.backbone import read_backbone
from simclr_mm.commands.export.target import literal
from simclr_mm.commands.export.verified import TARGETS, export
from simclr_mm.commands.transfer.dataset_table import DIGITS
from simclr_mm.commands.transfer.finetune_config import Training, finetune_config
from simclr_mm.errors import CheckpointError

timm = pytest.importorskip('timm')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """(checkpoint, config file) of a thin timm ResNet."""
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIGS / 'simclr_r18-w16_1xb256-coslr-10e_cifar10.py')
    cfg.model.backbone = dict(
        type='TIMMBackbone', model_name='resnet10t', channels=(8, 16, 24, 32), drop_path_rate=0.1
    )
    folder = tmp_path_factory.mktemp('timm')
    cfg.dump(folder / 'timm.py')
    state = shaken(get_model(cfg)).state_dict()
    torch.save(dict(state_dict=state, meta=dict(cfg=cfg.pretty_text)), folder / 'a.pth')
    return str(folder / 'a.pth'), str(folder / 'timm.py')


def test_it_is_built_from_a_config_that_the_user_names(trained):
    checkpoint, config = trained
    with pytest.raises(CheckpointError, match='a model of another library.*--config'):
        load_encoder(checkpoint)
    encoder = load_encoder(checkpoint, config)
    assert encoder.features(torch.zeros(2, 3, 32, 32)).shape == (2, 32)


@pytest.mark.parametrize('target', ['timm', 'mmpretrain', 'mmdet', 'safetensors'])
def test_it_is_exported(trained, target, tmp_path):
    encoder, left_out = read_backbone(*trained)
    path = tmp_path / f'x{TARGETS[target].suffix}'
    code, proof = export(encoder, target, path)
    assert proof.difference <= proof.tolerance and 'neck' in left_out
    if target == 'timm':
        model = timm.create_model('resnet10t', num_classes=0, channels=(8, 16, 24, 32))
        model.load_state_dict(torch.load(path)['state_dict'])
        images = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            found, expected = model.eval()(images), encoder.features(images)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert "'resnet10t', num_classes=0, channels=(8, 16, 24, 32)" in code


def test_it_is_fine_tuned(trained, tmp_path):
    """It has no setting for batch norm, which a config of fine-tuning must not name."""
    encoder = load_encoder(*trained)
    parts = DIGITS.parts(tmp_path, seed=0)
    cfg = finetune_config(encoder, tmp_path / 'e.pth', DIGITS, *parts[:2], Training(batch=8))
    assert 'norm_cfg' not in cfg.model.backbone and cfg.model.head.in_channels == 32


def test_settings_become_literals():
    value = {'type': 'R', 'a': "x'), __import__('os').system('true'), ('", 'b': [(1,), None, -1.5]}
    assert eval(literal(value), {'dict': dict}) == value
    assert eval(literal({'a.b': {'c': ()}})) == {'a.b': {'c': ()}}
    assert literal(value).startswith("dict(type='R', a=")
    for wrong in (torch.nn.ReLU, [open], {'a': np.float32(1)}):
        with pytest.raises(TypeError, match='is no plain setting'):
            literal(wrong)
