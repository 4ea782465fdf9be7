"""A checkpoint alone is enough to build its model."""

import argparse

import pytest
import torch

from simclr_mm.apis import get_model
from simclr_mm.apis.encoder import load_encoder
from simclr_mm.commands.command_line.encoder_flags import add_encoder_flags, inferencer_of
from simclr_mm.errors import CheckpointError

pytestmark = pytest.mark.portable
NAME = 'simclr_r18-w16_1xb256-coslr-10e_cifar10'


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """(model, checkpoint with its config, checkpoint without)."""
    torch.manual_seed(0)
    model = get_model(NAME)
    folder = tmp_path_factory.mktemp('encoder')
    state = model.state_dict()
    meta = dict(cfg=model._config.pretty_text)
    torch.save(dict(state_dict=state, meta=meta), folder / 'with.pth')
    torch.save(state, folder / 'without.pth')
    return model, folder / 'with.pth', folder / 'without.pth'


def test_by_the_stored_config_a_name_or_a_file(saved, tmp_path):
    model, with_config, without = saved
    model._config.dump(tmp_path / 'config.py')
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.extract_feat(images)
        for loaded in (
            load_encoder(with_config),
            load_encoder(without, NAME),
            load_encoder(without, tmp_path / 'config.py'),
        ):
            assert torch.equal(loaded.model.extract_feat(images), expected)


def test_no_config_anywhere(saved):
    with pytest.raises(CheckpointError, match='without.pth does not hold.*--config'):
        load_encoder(saved[2])


def test_a_name_without_published_weights():
    with pytest.raises(ValueError, match=f'{NAME} has no published weights'):
        load_encoder(NAME)


def test_flags(saved):
    parser = argparse.ArgumentParser()
    parser.add_argument('checkpoint')
    add_encoder_flags(parser)
    flags = ['--device', 'cpu', '--precision', 'bf16', '--config', NAME]
    inferencer = inferencer_of(parser.parse_args([str(saved[2]), *flags]))
    assert inferencer.precision == 'bf16' and inferencer.device == torch.device('cpu')
