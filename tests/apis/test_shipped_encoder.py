"""The encoder that comes with the package: its file is the one that index, name and card tell."""

import hashlib
import socket

import torch
import yaml
from helpers import ROOT
from mmengine.config import Config

from simclr_mm import get_model
from simclr_mm.checkpoints import load_file

NAME = 'simclr_r18-w16_1xb256-coslr-100e_cifar10'


def entry():
    models = yaml.safe_load((ROOT / 'configs' / 'metafile.yml').read_text())['Models']
    return next(model for model in models if model['Name'] == NAME)


def test_the_file_is_small_and_its_hash_is_in_its_name_and_in_the_index():
    path = ROOT / entry()['Weights']
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert sha256 == entry()['Metadata']['SHA-256']
    assert path.stem.endswith(f'-{sha256[:8]}') and path.stem.startswith(f'{NAME}_')
    assert len(content) < 3e6
    assert [file.name for file in path.parent.iterdir() if file.suffix == '.pth'] == [path.name]


def test_its_weights_are_there_without_a_network(monkeypatch):
    def no_network(*args):
        raise AssertionError('the network was used')

    monkeypatch.setattr(socket.socket, 'connect', no_network)
    model = get_model(NAME, pretrained=True)
    stored = load_file(ROOT / entry()['Weights'])['state_dict']
    loaded = model.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(
        torch.equal(loaded[key], value.to(loaded[key].dtype)) for key, value in stored.items()
    )


def test_its_config_is_the_recipe():
    meta = load_file(ROOT / entry()['Weights'])['meta']
    stored = Config.fromstring(meta['cfg'], '.py')
    recipe = Config.fromfile(ROOT / entry()['Config'])
    assert (meta['seed'], meta['epoch']) == (0, recipe.train_cfg.max_epochs)
    # mmpretrain writes the preprocessor of the whole config into the model, too.
    assert stored.model.pop('data_preprocessor') == recipe.data_preprocessor
    # A later release may watch more.
    assert stored.pop('default_hooks').items() <= recipe.pop('default_hooks').items()
    for key in set(recipe) - {'randomness', 'load_from', 'resume', 'work_dir', 'launcher'}:
        assert stored[key] == recipe[key], key


def test_its_card_has_the_results_of_the_index():
    card = (ROOT / entry()['Weights']).with_suffix('.md').read_text()
    for row in entry()['Results']:
        assert f'- {row["Task"]} on {row["Dataset"]}: Top 1 Accuracy' in card
        assert f'Accuracy {row["Metrics"]["Top 1 Accuracy"]} (measured here)' in card
