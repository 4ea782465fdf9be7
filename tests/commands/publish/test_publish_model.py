"""What is published: a small file that proves its own name, a card and an entry."""

import hashlib
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.tools import tool
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from simclr_mm import get_model
from simclr_mm.apis import load_encoder
from simclr_mm.checkpoints import load_file
from simclr_mm.commands.publish.command import _halved
from simclr_mm.commands.publish.metafile import put_entry
from simclr_mm.engine.resume import VALIDATED

ROOT = Path(__file__).parents[3]
NAME = 'simclr_r18-w16_1xb64-coslr-30e_digits'
CONFIG = ROOT / 'configs' / f'{NAME}.py'
run = partial(tool, 'publish_model.py')
URL = 'https://example.org/weights'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """As a training leaves it, with its log and its optimizer."""
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = '/home/somebody/runs'
    accuracy = HistoryBuffer(np.array([90.0, 96.666]), np.array([1, 1]))
    path = tmp_path_factory.mktemp('run') / 'epoch_30.pth'
    torch.save(
        dict(
            state_dict=get_model(cfg).state_dict(),
            optimizer=dict(state={}, param_groups=[]),
            param_schedulers=[],
            message_hub=dict(log_scalars={'val/knn/top1': accuracy}, runtime_info={VALIDATED: 690}),
            meta=dict(
                seed=5,
                cfg=cfg.pretty_text,
                epoch=30,
                iter=690,
                hook_msgs=dict(last_ckpt='/home/somebody/runs/epoch_30.pth'),
                experiment_name=f'{NAME}_20260101_010101',
            ),
        ),
        path,
    )
    return path


@pytest.fixture
def metafile(tmp_path):
    (tmp_path / 'configs').mkdir()
    shutil.copy(CONFIG, tmp_path / 'configs')
    return Path(shutil.copy(ROOT / 'configs' / 'metafile.yml', tmp_path / 'configs'))


def test_half_precision_on_disk(checkpoint, tmp_path, capsys):
    run(checkpoint, tmp_path / 'half', '--half')
    (path,) = (tmp_path / 'half').glob('*.pth')
    assert path.stat().st_size < 1.6 * 2**20  # of 725,136 parameters
    given = load_file(checkpoint)['state_dict']
    loaded = load_encoder(path).model.state_dict()
    for key, value in load_file(path)['state_dict'].items():
        matrix = value.ndim > 1
        assert value.dtype == (torch.float16 if matrix else given[key].dtype)
        assert loaded[key].dtype == given[key].dtype
        rounded = given[key].numpy().astype(np.float16) if matrix else given[key].numpy()
        np.testing.assert_array_equal(loaded[key].numpy(), rounded)


def test_a_validation_before_the_last_epoch_is_no_result_of_these_weights(
    checkpoint, tmp_path, capsys
):
    content = load_file(checkpoint)
    content['message_hub']['runtime_info'][VALIDATED] = 460
    cfg = Config.fromstring(content['meta']['cfg'], '.py')
    cfg.val_dataloader.dataset.gallery.data_root = '/home/somebody/data/digits'
    content['meta']['cfg'] = cfg.pretty_text
    torch.save(content, tmp_path / 'epoch_30.pth')
    run(tmp_path / 'epoch_30.pth', tmp_path / 'out')
    (card,) = (tmp_path / 'out').glob('*.md')
    text = card.read_text()
    assert 'Top 1 Accuracy 96.67 (measured here)' not in text and 'model-index' not in text
    line = 'kNN Classification Top 1 Accuracy 96.67 after 460 of 690 iterations'
    assert f'| Last validation in the log | {line} |' in text and '| Seed | 5 |' in text
    printed = capsys.readouterr().out
    assert 'Results: null' in printed
    assert 'shortened to their last name: val_dataloader.dataset.gallery.data_root\n' in printed
    (path,) = (tmp_path / 'out').glob('*.pth')
    gallery = load_encoder(path).config.val_dataloader.dataset.gallery
    assert gallery.data_root == 'digits'


def test_weights_that_are_too_large_for_half_precision(checkpoint, tmp_path):
    content = load_file(checkpoint)
    content['state_dict']['backbone.conv1.weight'][0, 0, 0, 0] = -1e5
    torch.save(content, tmp_path / 'large.pth')
    with pytest.raises(SystemExit, match='backbone.conv1.weight has weights that are too large'):
        run(tmp_path / 'large.pth', tmp_path, '--half')


def test_only_numbers_with_fractions_are_halved():
    index = torch.arange(4000).view(40, 100)  # such as BEiT's relative_position_index
    assert _halved(index, 'index').equal(index)
    assert _halved(torch.ones(2, 2, dtype=torch.bool), 'mask').dtype == torch.bool


@pytest.mark.portable
def test_file_card_and_entry(checkpoint, metafile, tmp_path, capsys):
    before = metafile.read_text()
    run(checkpoint, tmp_path / 'out', '--weights-url', f'{URL}/', '--metafile', metafile)
    assert 'left out: optimizer, param_schedulers, message_hub' in capsys.readouterr().out
    (path,) = (tmp_path / 'out').glob('*.pth')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert re.fullmatch(rf'{NAME}_\d{{8}}-{digest[:8]}', path.stem)

    file, given = load_file(path), load_file(checkpoint)  # the name's hash is checked
    assert set(file) == {'meta', 'state_dict'}
    assert list(file['state_dict']) == list(given['state_dict'])
    for key, value in given['state_dict'].items():
        assert torch.equal(file['state_dict'][key], value)
    assert 'somebody' not in str(file['meta']) and file['meta']['epoch'] == 30
    assert file['meta']['preprocessing']['size'] == 16
    assert file['meta']['preprocessing']['std'] == [1, 1, 1]
    assert 'somebody' not in path.with_suffix('.md').read_text()
    assert 'Top 1 Accuracy 96.67 (measured here)' in path.with_suffix('.md').read_text()
    load_encoder(path)  # the config is inside

    old = {m['Name']: m for m in yaml.safe_load(before)['Models']}
    new = {m['Name']: m for m in yaml.safe_load(metafile.read_text())['Models']}
    assert list(new) == list(old)
    entry = new.pop(NAME)
    assert new == {name: model for name, model in old.items() if name != NAME}
    # FLOPs, parameters, epochs and batch as tests/test_configs.py has checked them.
    assert entry == {
        **old[NAME],
        'Metadata': {**old[NAME]['Metadata'], 'SHA-256': digest},
        'Weights': f'{URL}/{path.name}',
        'Results': [
            {
                'Task': 'kNN Classification',
                'Dataset': 'scikit-learn digits',
                'Metrics': {'Top 1 Accuracy': 96.67},
                'Source': 'measured here',
            }
        ],
    }
    # Lines of other entries, comments too, are as they were.
    kept = [line for line in before.splitlines() if 'published by' in line or '#' in line]
    assert set(kept) <= set(metafile.read_text().splitlines())


def test_a_new_entry_comes_last(checkpoint, metafile, tmp_path):
    before = metafile.read_text()
    run(checkpoint, tmp_path / 'out', '--name', 'mine', '--config', CONFIG)
    with pytest.raises(SystemExit, match='name a config in this folder'):
        run(checkpoint, tmp_path / 'far', '--config', CONFIG, '--metafile', metafile)
    assert metafile.read_text() == before and not (tmp_path / 'far').exists()
    run(checkpoint, tmp_path / 'out', '--name', 'mine', '--metafile', metafile)
    text = metafile.read_text()
    assert text.startswith(before)
    added = yaml.safe_load(text)['Models'][-1]
    assert (added['Name'], added['Config']) == ('mine', f'configs/{NAME}.py')
    assert len(list((tmp_path / 'out').glob('mine_*.pth'))) == 1  # the same bytes


def test_weights_of_another_architecture(checkpoint, tmp_path):
    with pytest.raises(SystemExit, match='does not fit SimCLR'):
        run(checkpoint, tmp_path / 'out', '--config', 'simclr_r18-w16_1xb256-coslr-10e_cifar10')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['../x', '/x', '.x', 'a b', 'a\nb', '[red]'])
def test_a_name_that_no_file_may_have(checkpoint, tmp_path, name):
    with pytest.raises(SystemExit, match='--name .*: a name of a model has letters'):
        run(checkpoint, tmp_path / 'out', '--name', name)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('url', ['nourl', 'example.org/w', 'https://', 'https://a b', 'ftp://a/b'])
def test_no_address_of_the_weights(checkpoint, tmp_path, url):
    with pytest.raises(SystemExit, match='--weights-url .*: give an address that begins with'):
        run(checkpoint, tmp_path / 'out', '--weights-url', url)
    assert not (tmp_path / 'out').exists()


def test_no_metafile(checkpoint, tmp_path):
    with pytest.raises(SystemExit, match='there is no file'):
        run(checkpoint, tmp_path / 'out', '--metafile', tmp_path / 'metafile.yml')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('hub', [3, dict(log_scalars={'val/knn/top1': 'high'})])
def test_a_name_that_leads_elsewhere_and_a_damaged_log(checkpoint, hub, tmp_path):
    content = load_file(checkpoint)
    content['meta']['experiment_name'] = f'../../{NAME}'
    torch.save({**content, 'message_hub': hub}, tmp_path / 'a.pth')
    run(tmp_path / 'a.pth', tmp_path / 'far' / 'out')
    assert len(list((tmp_path / 'far' / 'out').glob(f'{NAME}_*'))) == 2
    assert {path.name for path in tmp_path.iterdir()} == {'a.pth', 'far'}


def test_results_and_metadata_stay_where_the_new_entry_has_none(metafile):
    (first,) = (
        m
        for m in yaml.safe_load(metafile.read_text())['Models']
        if m['Name'] == 'simclr_r18-w16_1xb256-coslr-10e_cifar10'
    )
    before = metafile.read_bytes()
    metadata = {k: v for k, v in first['Metadata'].items() if k != 'FLOPs'}
    new = {**first, 'Metadata': metadata, 'Results': None, 'Weights': f'{URL}/a.pth'}
    put_entry(metafile, new)
    now = yaml.safe_load(metafile.read_text())['Models']
    assert first['Results'] and {**first, 'Weights': f'{URL}/a.pth'} in now
    in_steps = {k: v for k, v in first['Metadata'].items() if k != 'Epochs'} | {'Iterations': 9}
    put_entry(metafile, {**first, 'Metadata': in_steps})
    now = yaml.safe_load(metafile.read_text())['Models']
    assert [m['Metadata'] for m in now if m['Name'] == first['Name']] == [in_steps]
    put_entry(metafile, {**first, 'Weights': 'x'})
    with pytest.raises(ValueError, match='would not be valid'):
        put_entry(metafile, {**first, 'In Collection': 'Absent'})
    with pytest.raises(ValueError, match='is no metafile'):
        (metafile.parent / 'a.yml').write_text('a: 1')
        put_entry(metafile.parent / 'a.yml', first)
    now = yaml.safe_load(metafile.read_text())['Models']
    assert {**first, 'Weights': 'x'} in now and metafile.read_bytes() != before
