"""The untrained encoder and the raw pixels that features are compared with."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from simclr_mm.apis.model_zoo import find_config
from simclr_mm.checkpoints import weights_hash
from simclr_mm.commands.command_line import test_data as data_of
from simclr_mm.commands.evaluate.feature_table import evaluate_features, untrained_encoder
from simclr_mm.commands.evaluate.image_features import small_pixels
from simclr_mm.errors import UserError

DIGITS = 'simclr_r18-w16_1xb64-coslr-30e_digits'
STUDENT = 'r18-w16_1xb256-distil-coslr-100e_cifar10'
FROM_FILE = dict(type='Pretrained', checkpoint='absent.pth', prefix='backbone.')


def backbone_hash(cfg, seed):
    torch.manual_seed(seed)  # of a process, which no result may depend on
    return weights_hash(untrained_encoder(cfg, 'cpu').model.backbone.state_dict())


@pytest.mark.parametrize('init_cfg', [FROM_FILE, [FROM_FILE, dict(type='Constant', layer='X')]])
def test_weights_of_a_file_are_not_untrained(init_cfg):
    cfg = find_config(DIGITS)[0]
    random = backbone_hash(cfg, 1)
    cfg.model.backbone.init_cfg = init_cfg
    assert backbone_hash(cfg, 2) == random
    assert cfg.model.backbone.init_cfg == init_cfg  # the caller's config stays


def test_weights_that_timm_reads_are_not_untrained(monkeypatch):
    timm = pytest.importorskip('timm')
    asked = []
    create = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda **kw: asked.append(kw) or create(**kw))
    cfg = find_config(DIGITS)[0]
    cfg.model.backbone = dict(type='TIMMBackbone', model_name='resnet10t', pretrained=True)
    untrained_encoder(cfg, 'cpu')
    assert [each['pretrained'] for each in asked] == [False]


def test_weights_that_only_a_constructor_draws_have_a_seed():
    cfg = find_config(DIGITS)[0]
    shape = dict(embed_dims=8, num_layers=1, num_heads=1, feedforward_channels=8)
    cfg.model.backbone = dict(
        type='VisionTransformer', arch=shape, img_size=16, patch_size=8, out_type='cls_token'
    )
    assert backbone_hash(cfg, 1) == backbone_hash(cfg, 2)


def test_an_untrained_student_needs_no_teacher():
    cfg = find_config(STUDENT)[0]
    cfg.model.teacher = 'absent.pth'
    assert backbone_hash(cfg, 1) == backbone_hash(cfg, 2)


def test_large_pictures_are_averaged_to_32_pixels():
    images = torch.rand(2, 3, 64, 64)
    naive = images.numpy().reshape(2, 3, 32, 2, 32, 2).mean(axis=(3, 5)).reshape(2, -1)
    np.testing.assert_allclose(small_pixels(images).numpy(), naive, rtol=1e-6)
    assert torch.equal(small_pixels(images[..., :16, :16]), images[..., :16, :16].flatten(1))


def test_a_config_without_test_data():
    with pytest.raises(UserError, match='the config has no test_dataloader, whose images'):
        data_of(Config(dict(model=dict())))
    with pytest.raises(UserError, match='has no test_dataloader'):
        evaluate_features(Config(dict(model=dict())), 'a.py', 'absent.pth')
