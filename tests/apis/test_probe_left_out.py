"""What is made of a checkpoint with an online probe: never the probe."""

import pytest
import torch
from helpers import CONFIGS, DIGITS
from mmengine.config import Config

from simclr_mm import get_model
from simclr_mm.apis import load_encoder
from simclr_mm.apis.loading import open_checkpoint
from simclr_mm.checkpoints import load_file
from simclr_mm.commands.command_line.data_folder import test_on_folder as data_of_test
from simclr_mm.commands.command_line.data_folder import train_on_folder
from simclr_mm.commands.export.backbone import read_backbone, tensors_of
from simclr_mm.commands.publish.command import publish

STEPS = CONFIGS / 'simclr_r50_8xb256-coslr-64k_in1k.py'


@pytest.fixture(scope='module')
def probed(tmp_path_factory):
    """A model with a probe and its checkpoint, which holds the config too."""
    cfg = Config.fromfile(DIGITS)
    cfg.model.online_probe = dict(num_classes=10)
    model = get_model(cfg)
    path = tmp_path_factory.mktemp('probed') / 'epoch_1.pth'
    meta = dict(cfg=cfg.pretty_text, experiment_name='digits')
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    return model, path


def test_models_without_a_probe_take_its_checkpoint(probed):
    model, path = probed
    with_probe = load_encoder(path)
    assert with_probe.model.probe is not None
    bare = get_model(DIGITS, pretrained=path)
    removed = get_model(
        Config.fromstring(load_file(path)['meta']['cfg'], '.py'), pretrained=path, online_probe=None
    )
    for each in (bare, removed):
        assert each.probe is None
        for key, value in each.state_dict().items():
            assert value.equal(model.state_dict()[key])


def test_published_files_have_no_probe(probed, tmp_path):
    _, path = probed
    done = publish(open_checkpoint(str(path)), tmp_path)
    published = load_file(done.path)
    assert {key.split('.')[0] for key in published['state_dict']} == {'backbone', 'neck'}
    assert 'online_probe' not in published['meta']['cfg']
    assert done.left_out == ['probe.fc.weight', 'probe.fc.bias']
    assert done.encoder.model.probe is None


def test_exports_have_no_probe(probed):
    encoder, left_out = read_backbone(str(probed[1]))
    assert not any('probe' in key for key in tensors_of(encoder))
    assert left_out['probe'] == '2 tensors, 1,290 numbers'


def test_folders_of_the_user_have_other_classes(tmp_path):
    """No labels for the probe in training, none of its classes in testing."""
    for part in ('train', 'val'):
        (tmp_path / part / 'cat').mkdir(parents=True)
    cfg = Config.fromfile(STEPS)
    train_on_folder(cfg, str(tmp_path))
    assert 'online_probe' not in cfg.model and cfg.val_evaluator is None
    cfg = Config.fromfile(STEPS)
    data_of_test(cfg, str(tmp_path))
    types = [metric.type.split('.')[-1] for metric in cfg.test_evaluator]
    assert types == ['KNNAccuracy', 'LabelFreeMetrics']
