"""torch.hub finds every model of the zoo in a clone."""

import runpy

import pytest
import torch
from helpers import ROOT

from simclr_mm import get_model, list_models

CIFAR = 'simclr_r18-w16_1xb256-coslr-10e_cifar10'


def load(name, **kwargs):
    return torch.hub.load(str(ROOT), name, source='local', **kwargs)


def test_weights_of_a_path_and_parts_removed(tmp_path):
    model = get_model(CIFAR)
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    loaded = load(CIFAR, pretrained=str(tmp_path / 'a.pth'), neck=None, head=None)
    assert not loaded.training and loaded.neck is loaded.head is None
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.extract_feat(images), model.extract_feat(images))
    with pytest.raises(ValueError, match='no neck or no head, so it has no loss'):
        loaded.loss(images)


def test_every_name_is_an_entry_with_its_weights():
    entries = runpy.run_path(str(ROOT / 'hubconf.py'))
    public = {
        name for name, entry in entries.items() if callable(entry) and not name.startswith('_')
    }
    assert public == set(list_models())
    text = entries['simclr_resnet50'].__doc__
    assert 'simclr_resnet50' in text and 'True for https://' in text
    assert 'True for' not in entries[CIFAR].__doc__


def test_no_such_entry():
    with pytest.raises(RuntimeError, match='Cannot find callable resnet50'):
        load('resnet50')
