"""What may be embedded and searched: every name that a file system holds, and packs."""

import json
import os
import re

import numpy as np
import pytest
import torch
from helpers import DIGITS
from helpers.tools import refusal, tool
from mmengine.config import Config
from PIL import Image

from simclr_mm import get_model
from simclr_mm.commands.embed.retrieval import FeatureIndex
from simclr_mm.commands.evaluate.image_features import from_embedding
from simclr_mm.errors import UserError

NAMES = ['$a_1$/x$.png', 'b[red]/y_^.png', os.fsdecode(b'c\xff/z\xe9.png'), 'plain/0.png']


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A checkpoint without a config."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'a.pth'
    torch.save(dict(state_dict=get_model(str(DIGITS)).state_dict()), path)
    return path


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    for k, name in enumerate(NAMES):
        path = root / name
        try:
            path.parent.mkdir()
        except OSError:
            pytest.skip('this file system takes UTF-8 names only')
        Image.new('RGB', (12, 10), (60 * k, 20, 200 - 60 * k)).save(path)
    return root


def embed(weights, folder, out, *flags, config=DIGITS):
    tool(
        'embed.py',
        *(weights, folder, '--config', config, '--out', out, '--workers', 0, '--device', 'cpu'),
        *flags,
    )


def test_names(weights, images, tmp_path, capsys):
    pytest.importorskip('pyarrow')
    from pyarrow.parquet import read_table

    embed(weights, images, tmp_path / 'out', '--parquet')
    shown = ['$a_1$/x$.png', 'b[red]/y_^.png', 'c\\xff/z\\xe9.png', 'plain/0.png']
    assert read_table(tmp_path / 'out/features.parquet')['path'].to_pylist() == shown
    assert json.loads((tmp_path / 'out/paths.json').read_text()) == NAMES
    capsys.readouterr()
    for name in NAMES:
        query = ['retrieve.py', images / name, '--index', tmp_path / 'out', '-k', 3]
        tool(*query, '--out', tmp_path / 'found.png')
        said = capsys.readouterr().out
        assert {each for each in shown if each in said} >= set(shown) - {shown[NAMES.index(name)]}
    tool('plot_embedding.py', tmp_path / 'out', '--method', 'pca', '--out', tmp_path / 'map.png')


@pytest.mark.parametrize(
    'kind, package, key',
    [
        ('tar', 'webdataset', r'shard-\d+\.tar/000000001\.png'),
        ('parquet', 'datasets', 'row 1'),
        ('lmdb', 'lmdb', re.escape(NAMES[1])),
    ],
)
def test_a_pack(kind, package, key, weights, images, tmp_path, capsys):
    """Its rows are the images' of the folder, named by the pack's keys."""
    pytest.importorskip(package)
    tool('pack.py', images, tmp_path / 'pack', '--format', kind)
    embed(weights, images, tmp_path / 'folder')
    embed(weights, tmp_path / 'pack', tmp_path / 'index')
    index = FeatureIndex(tmp_path / 'index')
    assert any(re.fullmatch(key, name) for name in index.names)
    expected = np.load(tmp_path / 'folder/features.npy')
    for feature in index.features:  # tar shuffles them
        assert np.abs(expected - feature).max(1).min() < 1e-5
    capsys.readouterr()
    query = ['retrieve.py', images / NAMES[3], '--index', tmp_path / 'index', '-k', 4]
    tool(*query, '--out', tmp_path / 'found.png')
    assert '1.0000' in capsys.readouterr().out
    with pytest.raises(ValueError, match='features of a pack'):
        from_embedding(tmp_path / 'index', most=3)
    embed(weights, tmp_path / 'pack', tmp_path / 'index')  # done is done
    if kind == 'tar':
        (images / NAMES[0]).rename(tmp_path / 'away')
        try:
            tool('pack.py', images, tmp_path / 'pack', '--restart')
        finally:
            (tmp_path / 'away').rename(images / NAMES[0])
        with pytest.raises(UserError, match='is of another pack than .*pack holds now: embed'):
            FeatureIndex(tmp_path / 'index').picture(0)


def test_a_config_that_an_index_names_is_not_run(weights, images, tmp_path):
    mark = tmp_path / 'ran'
    config = tmp_path / 'mine.py'
    config.write_text(f'_base_ = {str(DIGITS)!r}')
    embed(weights, images, tmp_path / 'out', config=config)
    config.write_text(f"_base_ = {str(DIGITS)!r}\nopen({str(mark)!r}, 'w').close()")
    query = ['retrieve.py', images / NAMES[3], '--index', tmp_path / 'out', '-k', 2]
    query += ['--out', tmp_path / 'found.png']
    tool(*query)  # by the settings in embedding.json
    assert not mark.exists()
    record = tmp_path / 'out/embedding.json'
    content = json.loads(record.read_text())
    content['config']['model']['type'] = 'os.system'
    record.write_text(json.dumps(content))
    assert "type='os.system', which is no class" in refusal(*query)
    del content['config']  # as the version before wrote it
    record.write_text(json.dumps(content))
    assert f'its config is not run unless you name it: add --config {config}' in refusal(*query)
    tool(*query, '--config', DIGITS)


def test_new_style_configs(images, tmp_path, capsys):
    """Types as classes: embedded by the config, searched by the record."""
    config = tmp_path / 'new.py'
    text = Config.fromfile(DIGITS).pretty_text
    text = text.replace("type='simclr_mm.SimCLR'", 'type=SimCLR').replace("'Resize'", 'Resize')
    text = text.replace("'PackInputs'", 'PackInputs')
    config.write_text(
        'from mmcv.transforms import Resize\nfrom mmpretrain.datasets import PackInputs\n'
        f'from simclr_mm.models import SimCLR\n{text}'
    )
    cfg = Config.fromfile(config)
    assert isinstance(cfg.model.type, type)
    torch.manual_seed(0)
    path = tmp_path / 'new.pth'
    torch.save(dict(state_dict=get_model(cfg).state_dict()), path)
    embed(path, images, tmp_path / 'out', config=config)
    query = ['retrieve.py', images / NAMES[3], '--index', tmp_path / 'out', '-k', 2]
    tool(*query, '--out', tmp_path / 'found.png')
    embed(path, images, tmp_path / 'old')
    first, second = (np.load(tmp_path / name / 'features.npy') for name in ('out', 'old'))
    np.testing.assert_array_equal(first, second)
    tool('evaluate_features.py', config, path, '--draws', 1, '--out', tmp_path / 'rows.json')
    assert 'pretrained encoder' in capsys.readouterr().out
