"""tools/transfer.py: what is there is evaluated once, what is not is told."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from helpers import DIGITS
from helpers.tools import tool
from mmengine.config import Config

from simclr_mm import get_model
from simclr_mm.commands.transfer import finetune, linear
from simclr_mm.evaluation import Result, read_run


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Two folders of two classes; a test image of the second is broken."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for folder in ('good', 'bad'):
        for part, count in (('train', 10), ('val', 2)):
            for k, name in enumerate(('dark', 'light')):
                (root / folder / part / name).mkdir(parents=True)
                for n in range(count):
                    image = rng.integers(0, 60, (16, 16, 3)) + 180 * k
                    cv2.imwrite(
                        str(root / folder / part / name / f'{n}.png'), image.astype(np.uint8)
                    )
    (root / 'bad/val/dark/0.png').write_bytes(b'no image')
    return root


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'encoder.pth'
    torch.save(dict(state_dict=get_model(Config.fromfile(DIGITS)).state_dict()), path)
    return path


@pytest.fixture
def call(data, checkpoint, tmp_path, capsys):
    def run(*arguments):
        where = '--config', DIGITS, '--work-dir', tmp_path
        tool('transfer.py', checkpoint, data, *where, '--workers', 0, *arguments)
        return capsys.readouterr().out

    return run


def test_a_folder_without_any_data_set_is_no_success(call):
    with pytest.raises(SystemExit, match='holds no images of these data sets'):
        call('--datasets', 'voc2007')


def test_done_once_with_the_same_weights_and_settings(call, data, tmp_path, monkeypatch):
    done = []
    evaluate = linear.linear_transfer
    monkeypatch.setattr(linear, 'linear_transfer', lambda *args: done.append(1) or evaluate(*args))
    folder = '--datasets', 'voc2007', '--folder', f'good={data / "good"}'
    printed = call(*folder)
    assert 'not on disk' in printed
    assert f'VOC2007: there is no {data / "VOC2007"}/ with ImageSets' in printed
    assert 'http://host.robots.ox.ac.uk/pascal/VOC/voc2007/' in printed
    run = read_run(tmp_path / 'good-linear-swept.json')
    assert [(each.metric, each.value) for each in run.results] == [
        ('top1', 100),
        ('mean_per_class', 100),
    ]
    assert run.results[0].split == 'val' and len(run.checkpoint_sha256) == 64
    assert '100.00' in call(*folder) and len(done) == 1
    call(*folder, '--size', '12')
    assert len(done) == 2
    call(*folder, '--size', '12', '--again')
    assert len(done) == 3


def test_another_folder_other_images_and_another_config_are_evaluated_anew(
    call, data, tmp_path, monkeypatch
):
    done = []

    def evaluate(encoder, dataset, *_):
        done.append(dataset.folders[0])
        return [Result('transfer', dataset.title, 'val', 'x', 'linear', 'top1', float(len(done)))]

    monkeypatch.setattr(linear, 'linear_transfer', evaluate)
    one, two = tmp_path / 'one', tmp_path / 'two'
    for copied in (one, two):
        shutil.copytree(data / 'good', copied)
    assert '1.00' in call('--datasets', '--folder', f'birds={one}')
    assert '2.00' in call('--datasets', '--folder', f'birds={two}')
    assert '2.00' in call('--datasets', '--folder', f'birds={two}')
    (two / 'train/dark/9.png').rename(two / 'train/light/10.png')  # another label
    assert '3.00' in call('--datasets', '--folder', f'birds={two}')
    other = Config.fromfile(DIGITS)
    other.data_preprocessor.mean = [1, 2, 3]
    other.dump(tmp_path / 'other.py')
    again = '--datasets', '--folder', f'birds={two}', '--config', tmp_path / 'other.py'
    assert '4.00' in call(*again) and '4.00' in call(*again)
    assert done == [str(one), str(two), str(two), str(two)]


def test_the_others_go_on_when_one_fails(call, data, tmp_path, capsys):
    folders = [f'--folder={name}={data / name}' for name in ('bad', 'good')]
    with pytest.raises(SystemExit, match='1 of 2 evaluations failed.*bad-linear'):
        call('--datasets', *folders)
    printed = capsys.readouterr().out
    assert 'UnreadableImage' in printed and 'bad/val/dark/0.png' in printed
    assert (tmp_path / 'good-linear-swept.json').is_file()
    assert not (tmp_path / 'bad-linear-swept.json').exists()


def test_a_border_before_the_crop_of_fine_tuning_alone(call, data, tmp_path, monkeypatch):
    """Sec. B.8.1: 256 and 224 pixels; here 16 and 14."""
    seen = {}

    def evaluate(name):

        def fake(encoder, *_):
            seen[name] = encoder.preprocessing
            return [Result('transfer', 'good', 'val', 'x', name, 'top1', 1.0)]

        return fake

    monkeypatch.setattr(linear, 'linear_transfer', evaluate('linear'))
    monkeypatch.setattr(finetune, 'finetune_transfer', evaluate('tuned'))
    call('--datasets', '--folder', f'good={data / "good"}', '--size', '14', '--protocol', 'both')
    assert (seen['linear'].size, seen['linear'].resize) == (14, 14)
    tuned = seen['tuned']
    assert (tuned.size, tuned.resize) == (14, 16)


def test_a_folder_beside_the_root_and_annotations_that_nobody_expects(
    call, data, monkeypatch, capsys
):
    """Relative folders are those of the shell."""
    monkeypatch.chdir(data.parent)
    asked = []

    def evaluate(encoder, dataset, parts, *_):
        asked.append(parts.test['data_root'])
        raise KeyError('name')

    monkeypatch.setattr(linear, 'linear_transfer', evaluate)
    with pytest.raises(SystemExit, match='2 of 2 evaluations failed'):
        call('--datasets', '--folder', f'a={data.name}/good', '--folder', f'b={data.name}/bad')
    assert asked == [str(data / name / 'val') for name in ('good', 'bad')]
    printed = capsys.readouterr()
    assert "KeyError: 'name'" in printed.out and 'Traceback' in printed.err


@pytest.mark.parametrize('text', ['good', '=x', 'a b=x', 'dtd=x'])
def test_a_folder_without_a_name_of_its_own(call, text):
    with pytest.raises(SystemExit, match='give NAME=DIR'):
        call('--datasets', '--folder', text)


def test_two_folders_of_one_name_and_less_than_no_worker(call, data, capsys):
    with pytest.raises(SystemExit, match='a=.*bad: another --folder has the name a'):
        call('--datasets', *(f'--folder=a={data / name}' for name in ('good', 'bad')))
    with pytest.raises(SystemExit):
        call('--datasets', 'digits', '--workers', '-1')
    assert '-1 is less than 0' in capsys.readouterr().err
