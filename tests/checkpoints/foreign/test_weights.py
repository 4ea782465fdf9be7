"""What a checkpoint gives to a model is a question; asking it changes nothing."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from simclr_mm.apis import get_model, loading
from simclr_mm.checkpoints import load_state
from simclr_mm.checkpoints.foreign.weights import weights_for
from simclr_mm.errors import CheckpointError

UNIT = dict(mean=[0.0] * 3, std=[255.0] * 3)


def sthalles():
    network = resnet18()
    network.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    return {f'backbone.{key}': value for key, value in network.state_dict().items()}


def test_a_file_with_the_models_own_keys():
    state = {'backbone.a': torch.ones(1), 'neck.fc0.weight': torch.ones(1)}
    found = weights_for(state, dict(state_dict=state), 'a.pth')
    assert found.state == state
    assert (found.normalise, found.backbone, found.layout) == ({}, {}, '')
    with_probe = {**state, 'probe.fc.weight': torch.ones(1)}
    assert weights_for(state, with_probe, 'a.pth').state == with_probe
    assert weights_for(with_probe, state, 'a.pth').state == state


def test_a_file_of_another_library():
    found = weights_for({'backbone.conv1.weight'}, sthalles(), 'a.pth')
    assert found.normalise == UNIT and found.backbone == dict(type='ResNet', depth=18)
    assert {key.split('.')[0] for key in found.state} == {'backbone', 'neck'}
    assert found.layout == 'sthalles'


@pytest.mark.parametrize(
    'change',
    [
        dict(normalise=dict(mean=[1, 2], std=[1, 2, 3])),
        dict(normalise=dict(mean='abc', std=[1, 2, 3])),
        dict(normalise=[1]),
        dict(backbone=3),
        dict(backbone={}),
    ],
)
def test_a_damaged_meta(change):
    meta = dict(dict(normalise=UNIT, backbone=dict(type='ResNet')), **change)
    with pytest.raises(CheckpointError, match='^a.pth: its meta .* convert it again$'):
        weights_for([], dict(state_dict={'backbone.a': torch.ones(1)}, meta=meta), 'a.pth')


def test_tensors_that_do_not_go_with_their_keys():
    state = {'layer1.0.conv1.weight': torch.ones(1), 'bn1.weight': torch.ones(1)}
    for stage in '1234':
        state[f'layer{stage}.0.conv2.weight'] = torch.ones(1)
    with pytest.raises(CheckpointError, match='its tensors do not fit them'):
        weights_for([], {**state, 'conv1.weight': torch.ones(1)}, 'a.pth')


def test_weights_that_do_not_fit_leave_the_preprocessing_alone(tmp_path, monkeypatch):
    torch.save(sthalles(), tmp_path / 'a.pth')
    built = []

    def watched(model, *args):
        built.append(model)
        load_state(model, *args)

    monkeypatch.setattr(loading, 'load_state', watched)
    with pytest.raises(CheckpointError, match='does not fit'):
        get_model('simclr_resnet50', pretrained=tmp_path / 'a.pth')
    assert built[0].data_preprocessor.std[0].item() == pytest.approx(58.395)
