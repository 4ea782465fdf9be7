"""``simclr-mm pretrain DIR`` from images to a page."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers.tools import tool
from mmengine.config import Config
from PIL import Image

from simclr_mm.apis import load_encoder
from simclr_mm.commands.pretrain import command
from simclr_mm.commands.pretrain.choices import choose
from simclr_mm.commands.pretrain.recipe_config import config_text
from simclr_mm.commands.pretrain.surroundings import Pictures, look_at, machine
from simclr_mm.datasets.decoded_files import read_images
from simclr_mm.engine.dry_run import seconds_a_step
from simclr_mm.evaluation import PRETRAINED, read_run
from simclr_mm.files.atomic import alone_in


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """48 images of two kinds, one of them damaged, in folders with a difficult name."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    place = tmp_path / "it's a 'folder'"
    for name, tone in (('dark', 40), ('light', 200)):
        (place / name).mkdir(parents=True)
        for i in range(24):
            values = (tone + rng.normal(0, 20, (36, 48, 3))).clip(0, 255).astype('u1')
            Image.fromarray(values).save(place / name / f'{i}.png')
    return place


@pytest.fixture
def slow_steps(monkeypatch):
    """A step that takes ten seconds: two epochs in a minute."""
    measured = []

    def seconds_a_step(cfg):
        measured.append(cfg)
        return 10.0

    monkeypatch.setattr(command, 'seconds_a_step', seconds_a_step)
    return measured


def refused(*args):
    with pytest.raises(SystemExit) as end:
        tool('simclr-mm', 'pretrain', *args)
    return end.value.code


def test_from_a_folder_to_a_page(folder, slow_steps, capsys):
    tool('simclr-mm', 'pretrain', folder, '--minutes', '1', '--out', 'out', '--seed', '3')
    printed = capsys.readouterr().out
    assert '48 images, short side 36 to 36 px' in printed
    assert '2 folders of 24 to 24 images' in printed
    assert 'pretrained encoder' in printed and 'Go on with:' in printed
    assert 'mmengine - INFO' not in printed

    out = folder.parent / 'out'
    features = np.load(out / 'embedding' / 'features.npy')
    assert features.shape == (48, 128) and np.isfinite(features).all()
    page = (out / 'report.html').read_text()
    assert 'pretrained encoder' in page and 'data:image/png' in page
    assert (out / 'report.png').stat().st_size > 10_000
    run = read_run(out / 'evaluation' / 'pretrain.json')
    knn = {each.features: each.value for each in run.results if each.protocol == 'knn'}
    assert knn[PRETRAINED] == 100  # of 10 images, a fifth of each folder

    cfg = Config.fromfile(out / 'recipe.py')
    assert (cfg.train_cfg.max_epochs, cfg.randomness.seed) == (2, 3)
    assert cfg.work_dir == str(out / 'run')  # wherever it is continued
    load_encoder(out / 'run' / 'epoch_2.pth')  # it carries its config
    assert f'{out.name} holds a finished run' in refused(folder, '--out', 'out')


@pytest.mark.parametrize('others', ['dark', 'other'])
def test_what_a_validation_folder_is_for_is_said(folder, tmp_path, others):
    place = tmp_path / 'both'
    shutil.copytree(folder, place / 'train')
    shutil.copytree(folder, place / 'val')
    if others == 'other':
        (place / 'val' / 'dark').rename(place / 'val' / others)
    said = command._found(look_at(place), machine())
    use = 'classified' if others == 'dark' else 'not used, as no classes are measured'
    assert f'{place}/val trains nothing: {use}' in said


def test_the_same_command_continues(folder, slow_steps, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    args = (folder, '--minutes', '1', '--out', 'out')
    with monkeypatch.context() as patch:
        patch.setattr(signal, 'signal', lambda *args: None)
        patch.setattr(command, '_embed', interrupted)
        assert refused(*args) == 130
    other = folder.with_name('other')
    shutil.copytree(folder, other)
    said = refused(other, '--minutes', '1', '--out', 'out')
    assert f'is the recipe of an interrupted run on the images of {folder}: name another' in said
    weights = folder.parent / 'out' / 'run' / 'epoch_2.pth'
    trained = weights.stat().st_mtime_ns
    tool('simclr-mm', 'pretrain', *args)
    assert 'recipe.py was begun before' in capsys.readouterr().out
    assert len(slow_steps) == 1
    assert weights.stat().st_mtime_ns == trained  # nothing is done again
    assert (folder.parent / 'out' / 'report.html').exists()


def test_a_damaged_image_is_named_and_read_around(folder, slow_steps, monkeypatch, capsys):
    def seconds_a_step(cfg):
        slow_steps.append(cfg)
        if len(slow_steps) == 1:
            read_images([str(damaged)], 48)
        return 10.0

    damaged = folder / 'dark' / '0.png'
    damaged.write_bytes(damaged.read_bytes()[:200])
    monkeypatch.setattr(command, 'seconds_a_step', seconds_a_step)
    tool('simclr-mm', 'pretrain', folder, '--minutes', '1', '--out', 'out')
    printed = capsys.readouterr().out
    assert 'from files: not every image can be held in memory' in printed
    assert 'pretrained encoder' not in printed  # a query that cannot be read has no answer
    assert '1 images are unreadable: out/embedding/errors.jsonl' in printed
    features = np.load(folder.parent / 'out' / 'embedding' / 'features.npy')
    assert np.isnan(features).any(axis=1).sum() == 1


def test_too_short_a_time_is_said_before_all_images_are_read(folder, slow_steps, monkeypatch):
    here = command.machine()._replace(free_memory=0)
    monkeypatch.setattr(command, 'machine', lambda: here)
    monkeypatch.setattr(command, '_unreadable', None)
    assert 'too long for --minutes 0.01' in refused(folder, '--minutes', '0.01', '--out', 'out')


@pytest.mark.parametrize('broken', [0, 1])
def test_a_folder_that_memory_does_not_hold(folder, slow_steps, monkeypatch, capsys, broken):
    for k in range(broken):
        path = folder / 'dark' / f'{k}.png'
        path.write_bytes(path.read_bytes()[:200])
    small = machine()._replace(free_memory=1000)
    monkeypatch.setattr(command, 'machine', lambda: small)
    tool('simclr-mm', 'pretrain', folder, '--minutes', '1', '--out', 'out')
    printed = capsys.readouterr().out
    assert 'would be too much of the memory' in printed
    assert ('1 images cannot be read, so training replaces them' in printed) == bool(broken)
    assert ('pretrained encoder' in printed) == (not broken)


def test_steps_are_timed_on_the_images(folder):
    pictures, here = look_at(folder), machine()
    cfg = Config.fromstring(config_text(choose(pictures, here, 2), pictures), '.py')
    before = cfg.to_dict()
    assert 0 < seconds_a_step(cfg) < 60
    assert cfg.to_dict() == before


@pytest.mark.parametrize(
    ('args', 'code', 'said'),
    [
        (('absent',), 1, 'there is no folder'),
        (('.', '--minutes', '0'), 2, 'give a number of minutes above 0'),
        (('.', '--minutes', 'x'), 2, 'give a number of minutes above 0'),
        (('.', '--quick', '--minutes', '3'), 2, 'not allowed with argument'),
        (('.',), 1, 'holds no image'),
        ((), 2, 'the following arguments are required: folder'),
    ],
)
def test_mistakes(args, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ended = refused(*args)
    line = ended if code == 1 else capsys.readouterr().err
    assert said in line and (code == 1 or ended == 2)
    assert line.startswith('simclr-mm pretrain: error: ') and line.strip().count('\n') == 0


def test_pictures_of_a_run_never_lie_among_its_images(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for args in ('.',), ('.', '--out', folder / 'a' / 'b'):
        assert 'name another place with --out' in refused(*args)
    assert not {'work_dirs', 'a'} & {each.name for each in folder.iterdir()}


def test_too_little_time(folder, monkeypatch):
    monkeypatch.setattr(command, 'seconds_a_step', lambda cfg: 100.0)
    assert 'give --minutes' in refused(folder, '--minutes', '1')
    assert not (folder.parent / 'work_dirs').exists()


def test_a_folder_that_was_moved_goes_on_where_it_is(folder, slow_steps, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    args = (folder, '--minutes', '1', '--out')
    with monkeypatch.context() as patch:
        patch.setattr(signal, 'signal', lambda *args: None)
        patch.setattr(command, '_embed', interrupted)
        assert refused(*args, 'out') == 130
    old, new = folder.parent / 'out', folder.parent / 'moved'
    old.rename(new)
    weights = new / 'run' / 'epoch_2.pth'
    trained = weights.stat().st_mtime_ns
    tool('simclr-mm', 'pretrain', *args, 'moved')
    assert weights.stat().st_mtime_ns == trained and not old.exists()
    printed = capsys.readouterr().out
    assert str(weights) in printed and 'nothing was saved' not in printed


def test_a_run_that_was_stopped_early_says_that_it_begins_anew(folder, slow_steps, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    said = []
    monkeypatch.setattr(command, 'train_with_bar', interrupted)
    monkeypatch.setattr('builtins.print', lambda *args, **kwargs: said.append(args[0]))
    with monkeypatch.context() as patch:
        patch.setattr(signal, 'signal', lambda *args: None)
        for _ in range(2):
            assert refused(folder, '--minutes', '1', '--out', 'out') == 130
    assert sum('from the first step: nothing was saved' in str(line) for line in said) == 1


def test_two_at_a_time_leave_the_recipe_of_the_first(folder, slow_steps):
    with alone_in(folder.parent / 'out'):
        said = refused(folder, '--minutes', '1', '--out', 'out')
    assert 'another process is working in out: wait for it' in said
    assert not (folder.parent / 'out' / 'recipe.py').exists()


def test_the_longer_run_is_of_the_folder_that_was_given():
    said = command._next('photographs', Path('out'), 'out/run/epoch_2.pth', 2.0)
    assert 'simclr-mm pretrain photographs --minutes 8 --out out-longer' in said


def test_a_table_that_would_take_hours_is_left_out(capsys):
    many = Pictures(Path('a'), None, 60_000, (9, 9, 9), 0.0, {str(k): 60 for k in range(1000)})
    command._evaluate(None, Path('out/recipe.py'), 'b.pth', many)
    said = capsys.readouterr().out
    assert 'no linear classifiers are trained: 60000 images in 1000 folders' in said
    assert '"simclr-mm evaluate out/recipe.py b.pth" does it' in said


def test_memory_that_no_system_tells(folder, monkeypatch):
    monkeypatch.setattr('simclr_mm.commands.pretrain.surroundings.free_memory', lambda: None)
    monkeypatch.setattr('simclr_mm.commands.pretrain.surroundings.get_device', lambda: 'mps')
    here = machine()
    assert (here.device, here.free_memory) == ('cpu', None)
    said = command._found(look_at(folder), here)
    assert 'cores, MPS, memory unknown; computes in float32, bf16 was never tried on mps' in said
    assert choose(look_at(folder), here, 2).images.value == 'memory'
