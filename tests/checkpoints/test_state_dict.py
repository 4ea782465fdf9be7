"""Weights go in whole or not at all, and the error lists the keys."""

import pytest
import torch
from torch import nn

from simclr_mm.checkpoints import backbone_state, load_state, model_state
from simclr_mm.errors import CheckpointError


def _model() -> nn.Module:
    return nn.ModuleDict(dict(backbone=nn.Linear(3, 2), head=nn.Linear(2, 2)))


def test_fitting_weights_are_loaded():
    model, other = _model(), _model()
    load_state(model, other.state_dict(), 'a.pth')
    for key, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def test_all_that_does_not_fit_is_listed_and_nothing_is_loaded():
    model = _model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    state['neck.fc0.weight'] = state.pop('head.bias')
    state['backbone.weight'] = torch.zeros(5, 5)
    with pytest.raises(CheckpointError) as error:
        load_state(model, state, 'a.pth')
    message = str(error.value)
    assert message.startswith(
        'a.pth does not fit ModuleDict: 1 missing: head.bias; '
        '1 unexpected: neck.fc0.weight; 1 of another shape: '
        'backbone.weight (5, 5) for (2, 3);'
    )
    assert '\n' not in message
    for key, value in model.state_dict().items():
        assert torch.equal(before[key], value)


def test_a_long_list_is_counted():
    with pytest.raises(CheckpointError, match='25 unexpected: k0, .* and 5 more'):
        load_state(nn.Identity(), {f'k{i}': torch.zeros(1) for i in range(25)}, 'a.pth')


def test_backbone_state():
    state = _model().state_dict()
    expected = {'weight': state['backbone.weight'], 'bias': state['backbone.bias']}
    for checkpoint in (state, dict(state_dict=state, meta={})):
        assert backbone_state(checkpoint) == expected
    assert backbone_state(state, '') == dict(state)
    with pytest.raises(CheckpointError, match='a.pth .* "encoder.", only with backbone, '):
        backbone_state(state, 'encoder.', 'a.pth')


@pytest.mark.parametrize('checkpoint', [{}, [1], dict(meta=3), dict(state_dict={})])
def test_no_weights(checkpoint):
    with pytest.raises(CheckpointError, match='a.pth holds no weights'):
        model_state(checkpoint, 'a.pth')
