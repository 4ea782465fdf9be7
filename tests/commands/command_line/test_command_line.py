"""A tool ends in one line for a user's mistake, and with a traceback for its own."""

import argparse
import errno
import os
import signal
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import DIGITS
from mmengine.config import Config
from torch.utils.data import DataLoader, Dataset

from simclr_mm.checkpoints.safe_load import _TRUSTED
from simclr_mm.commands import command_line
from simclr_mm.commands.command_line import data_folder
from simclr_mm.engine.loader_workers import NOT_PASSED, start_plain_worker
from simclr_mm.engine.options import merge_cfg_options
from simclr_mm.errors import UserError

pytestmark = pytest.mark.portable
CONFIGS = Path(__file__).parents[3] / 'configs'


def _unknown_option():
    merge_cfg_options(Config(dict(a=1)), {'b': 2})


def _no_validation():
    cfg = Config(dict(val_dataloader=None))
    merge_cfg_options(cfg, {'val_dataloader.num_workers': 0})


def _no_such_scheduler():
    cfg = Config(dict(param_scheduler=[dict(type='CosineAnnealingLR')]))
    merge_cfg_options(cfg, {'param_scheduler.1.end': 2})


def _misspelt_part():
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=2)))
    merge_cfg_options(cfg, {'auto_scale_lr.enable': True})
    merge_cfg_options(cfg, {'auto_scale_lr.enabel': True})


def _no_config():
    Config.fromfile('nowhere.py')


@pytest.mark.parametrize(
    'argv, named', [(['--data', ''], '--data'), (['a', ''], 'an argument'), ([''], 'an argument')]
)
def test_an_empty_argument_is_no_path(argv, named, monkeypatch):
    ran = []
    monkeypatch.setattr(sys, 'argv', ['tools/x.py', *argv])
    for arguments in (argv, None):
        with pytest.raises(SystemExit, match=f'^x.py: error: {named} is empty'):
            command_line.command(ran.append)(arguments)
    assert not ran


@pytest.mark.parametrize(
    'main, message',
    [
        (_no_validation, '--cfg-options val_dataloader.num_workers: val_dataloader is None in'),
        (_unknown_option, "--cfg-options b: the config has no key 'b'"),
        (
            _no_such_scheduler,
            '--cfg-options param_scheduler.1.end: the config has no such place. Index 1 exceeds',
        ),
        (
            _misspelt_part,
            '--cfg-options auto_scale_lr.enabel: the keys of auto_scale_lr are '
            'base_batch_size, enable, rule.',
        ),
        (_no_config, 'nowhere.py'),
    ],
)
def test_a_mistake_is_one_line(main, message, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tools/x.py'])
    with pytest.raises(SystemExit) as end:
        command_line.command(lambda _: main())([])
    said = end.value.code
    assert said.startswith('x.py: error: ') and message in said and '\n' not in said


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('absent.py', None, "there is no config file '.*absent.py'"),
        ('.', None, "there is no config file '.*', it is a folder: simclr-mm configs lists"),
        ('a.txt', 'model = dict()', 'a.txt is no config: give a .py file'),
        ('broken.py', 'model = = 3', 'cannot be read as a config: SyntaxError'),
        ('child.py', "_base_ = 'absent.py'", 'cannot be read as a config: .*absent.py'),
        ('list.json', '[1]', 'cannot be read as a config'),
        ('empty.py', '', 'has no model = dict'),
        ('number.py', 'model = 3', 'has no model = dict'),
    ],
)
def test_what_is_no_config(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        command_line.read_config(str(tmp_path / name))


def test_values_of_flags(capsys):
    parser = command_line.parser_of('', '--cfg-options')
    parser.add_argument('--count', type=command_line.at_least(1))
    args = parser.parse_args(['--count', '1', '--cfg-options', 'a.b=[1,2]', 'c='])
    assert (args.count, args.cfg_options) == (1, {'a.b': [1, 2], 'c': ''})
    for flags, message in (
        (['--count', '0'], '--count: 0 is less than 1'),
        (['--count', '1.5'], "--count: '1.5' is no whole number"),
        (['--count', '9' * 20], f'--count: {"9" * 20} is more than 2147483647'),
        (['--cfg-options', 'model'], '--cfg-options model: write key=value'),
        (['--cfg-options', '=3'], '--cfg-options =3: write key=value'),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(flags)
        assert message in capsys.readouterr().err


def test_a_dict_is_not_replaced_by_a_value():
    cfg = Config(dict(model=dict(head=dict(type='A')), val_cfg=dict()))
    for key in ('model', 'model.head'):
        with pytest.raises(UserError, match=f'--cfg-options {key}=3: {key} is a dict'):
            merge_cfg_options(cfg, {key: 3})
    merge_cfg_options(cfg, {'val_cfg': None})
    assert cfg.val_cfg is None


@pytest.mark.parametrize(
    'key, value, kind',
    [
        ('train_cfg.max_epochs', 'abc', 'a number'),
        ('param_scheduler.0.end', 'abc', 'a number'),
        ('resume', 'abc', 'True or False'),
    ],
)
def test_a_word_where_the_config_has_a_number(key, value, kind):
    cfg = Config(dict(train_cfg=dict(max_epochs=3), param_scheduler=[dict(end=1)], resume=False))
    with pytest.raises(UserError, match=f'--cfg-options {key}=abc: .*give {kind}'):
        merge_cfg_options(cfg, {key: value})


def _full_disk():
    raise OSError(errno.ENOSPC, 'No space left on device')


class Mistaken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError('the key is wrong: mend it')


def test_a_mistake_in_a_worker_is_the_same_line():
    @command_line.command
    def main(argv):
        next(iter(DataLoader(Mistaken(), num_workers=1)))

    with pytest.raises(SystemExit) as end:
        main([])
    assert str(end.value).endswith('error: the key is wrong: mend it')
    assert 'Traceback' not in str(end.value)


class Killed(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line():
    @command_line.command
    def main(argv):
        next(iter(DataLoader(Killed(), num_workers=1)))

    with pytest.raises(SystemExit, match='error: loader worker [0-9]+ was ended from outside, '):
        main([])

    def _try_get_data():  # a frame of PyTorch's loader, whose worker has just gone
        raise ConnectionResetError(errno.ECONNRESET, 'Connection reset by peer')

    with pytest.raises(SystemExit, match='error: loader worker was ended from outside, '):
        command_line.command(lambda _: _try_get_data())([])


def test_a_full_disk_and_a_name_that_writes_on_the_terminal(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['x.py'])
    with pytest.raises(SystemExit, match='^x.py: error: No space left on device'):
        command_line.command(lambda _: _full_disk())([])

    def escape(_):
        raise UserError('a\x1b[31m.png is no image')

    with pytest.raises(SystemExit, match=r'a\\x1b\[31m.png is no image'):
        command_line.command(escape)([])


def test_a_fault_keeps_its_traceback(capsys):
    """A ValueError that nobody raised for the user, such as NumPy's."""
    with pytest.raises(ValueError, match='broadcast'):
        command_line.command(lambda _: np.zeros(2) + np.zeros(3))([])
    assert 'please open an issue' in capsys.readouterr().err


def _interrupted():
    raise KeyboardInterrupt


def _interrupted_in_a_library():
    try:
        _interrupted()
    except KeyboardInterrupt:
        raise SyntaxError('what MMEngine says while it formats a config')  # noqa: B904


@pytest.mark.parametrize('rank', ['0', '1'])
@pytest.mark.parametrize('main', [_interrupted, _interrupted_in_a_library])
def test_ctrl_c_is_one_line_of_the_first_rank(main, rank, capsys, monkeypatch):
    monkeypatch.setenv('RANK', rank)
    monkeypatch.setattr(signal, 'signal', lambda *args: None)
    with pytest.raises(SystemExit) as end:
        command_line.command(lambda _: main())([])
    assert end.value.code == 130
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (rank == '0') and all('with --resume' in line for line in lines)


def test_the_system_names_the_file(tmp_path):
    with pytest.raises(SystemExit) as end:
        command_line.command(lambda _: (tmp_path / 'absent').read_text())([])
    absent = tmp_path / 'absent'
    assert end.value.code.endswith(f'error: {absent}: No such file or directory: check the path')


def test_a_download_of_another_library():
    def main(argv):
        raise URLError(OSError('no route'))

    with pytest.raises(SystemExit, match=r'error: a download failed \(no route\): put the files'):
        command_line.command(main)([])


@pytest.mark.parametrize(
    ('called', 'evaluate', 'pack', 'absent'),
    [
        ('simclr-mm', 'simclr-mm evaluate', 'simclr-mm pack', 'simclr-mm doctor'),
        ('here/embed.py', 'here/evaluate_features.py', 'here/pack.py', 'simclr-mm doctor'),
    ],
)
def test_commands_are_named_as_called(called, evaluate, pack, absent, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'here').mkdir()
    for name in ('embed', 'evaluate_features', 'pack'):
        (tmp_path / 'here' / f'{name}.py').touch()
    monkeypatch.setattr(sys, 'argv', [called])
    text = 'simclr-mm evaluate, then simclr-mm pack OUT, or simclr-mm doctor'
    expected = f'{evaluate}, then {pack} OUT, or {absent}'

    def main(argv):
        raise UserError(text)

    with pytest.raises(SystemExit) as end:
        command_line.command(main)([])
    assert end.value.code.endswith(f'error: {expected}')
    assert expected in command_line.parser_of(text).format_help()


def test_a_name_that_is_not_utf_8_is_printed(capsys):
    command_line.command(lambda _: print('wrote bad\udcff.png'))([])
    assert capsys.readouterr().out == 'wrote bad\\udcff.png\n'


def test_results_of_one_second_are_two_files():
    args = argparse.Namespace(config='a.py', work_dir=None)
    one, other = (command_line.result_path(args, Config()) for _ in range(2))
    assert one != other and one.parent == Path('work_dirs/a/evaluation')


@pytest.mark.parametrize(
    ('flag', 'named', 'expected'),
    [(None, None, 'work_dirs/a'), (None, 'out/run', 'out/run'), ('mine', 'out/run', 'mine')],
)
def test_results_lie_in_the_work_dir(flag, named, expected):
    args = argparse.Namespace(config='a.py', work_dir=flag)
    cfg = Config(dict(work_dir=named))
    assert command_line.result_path(args, cfg).parent == Path(expected, 'evaluation')


def test_trust_ends_with_the_tool():
    parser = command_line.parser_of('', '--trust-checkpoint')
    seen = []
    for flags in ([], ['--trust-checkpoint'], []):
        command_line.command(lambda argv: (parser.parse_args(argv), seen.append(_TRUSTED.get())))(
            flags
        )
    assert seen == [False, True, False]


def test_a_folder_takes_the_place_of_the_images_inside_a_subset(tmp_path):
    for part in ('train', 'val'):
        for name in 'abc':
            (tmp_path / part / name).mkdir(parents=True)
    cfg = Config.fromfile(
        CONFIGS / 'benchmarks' / 'r18-w16_1xb64-finetune-coslr-60e_cifar10-1pct.py'
    )
    before = cfg.train_dataloader.dataset.dataset.pipeline
    data_folder.train_on_folder(cfg, str(tmp_path))
    subset = cfg.train_dataloader.dataset
    assert (subset.type, subset.share) == ('simclr_mm.LabelSubset', 0.01)
    images = subset.dataset
    assert (images.type, images.data_root) == ('simclr_mm.ImageFolder', str(tmp_path / 'train'))
    assert images.with_label
    assert images.pipeline[0].type == 'simclr_mm.LoadImageFromFile'
    assert images.pipeline[1:] == before
    assert cfg.val_dataloader.dataset.data_root == str(tmp_path / 'val')
    assert cfg.model.head.num_classes == 3


@pytest.mark.parametrize(
    ('in_model', 'key', 'value', 'right'),
    [
        (False, 'model.data_preprocessor.mean', [1, 2, 3], 'data_preprocessor.mean'),
        (False, 'model.data_preprocessor', dict(mean=[1, 2, 3]), 'data_preprocessor'),
        (False, 'model', dict(data_preprocessor=dict(mean=[1, 2, 3])), 'data_preprocessor'),
        (True, 'data_preprocessor.mean', [1, 2, 3], 'model.data_preprocessor.mean'),
    ],
)
def test_option_makes_no_second_preprocessor(in_model, key, value, right):
    """It would replace all settings of the first, such as std, or be ignored."""
    settings = dict(mean=[0, 0, 0], std=[9, 9, 9])
    cfg = Config(dict(model=dict(type='SimCLR'), data_preprocessor=settings))
    if in_model:
        cfg.model.data_preprocessor = settings
    with pytest.raises(UserError, match=rf': write {right}$'):
        merge_cfg_options(cfg, {key: value})
    merge_cfg_options(cfg, {f'{right.removesuffix(".mean")}.mean': [4, 5, 6]})
    used = cfg.model.data_preprocessor if in_model else cfg.data_preprocessor
    assert used == dict(mean=[4, 5, 6], std=[9, 9, 9])


@pytest.mark.parametrize(
    'given, expected',
    [({}, '0'), ({'OMPI_COMM_WORLD_LOCAL_RANK': '3'}, '3'), ({'LOCAL_RANK': '2'}, '2')],
)
def test_the_rank_on_this_machine_is_the_launchers(given, expected, monkeypatch):
    for name in ('LOCAL_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, 'environ', os.environ.copy())  # what it sets does not stay
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    command_line.add_common_flags(parser)
    command_line.load_config(parser.parse_args([str(DIGITS)]))
    assert os.environ['LOCAL_RANK'] == expected


class Large(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return torch.zeros(3)


def _no_room(*args, **kwargs):
    raise OSError(errno.ENOSPC, 'No space left on device')


def _start_without_room(worker):
    ForkingPickler.dumps = _no_room  # in this process, which is the worker
    start_plain_worker()


def test_a_worker_that_cannot_pass_its_images_on_ends_the_command(capfd):
    """Its parent would wait for ever: Python's thread that passes them on only prints."""

    @command_line.command
    def main(argv):
        next(iter(DataLoader(Large(), num_workers=1, worker_init_fn=_start_without_room)))

    with pytest.raises(SystemExit, match='error: a loader worker cannot pass its images on, for'):
        main([])
    said = capfd.readouterr().err
    assert 'a loader worker cannot pass its images on: [Errno 28] No space left' in said


@pytest.mark.parametrize(
    ('text', 'remedy'),
    [
        ('unable to allocate shared memory(shm) for file </torch_1_2_3>', '--shm-size=8g'),
        ('unable to open object </torch_1_2_3> in read-write mode: Too many open files', 'ulimit'),
        (f'DataLoader worker (pid 1) exited unexpectedly with exit code {NOT_PASSED}.', 'for the'),
        ('[Errno 24] Too many open files', 'ulimit -n'),
        ('AF_UNIX path too long', 'TMPDIR is too long'),
    ],
)
def test_what_workers_need_from_the_system(text, remedy):
    def fail(argv):
        raise RuntimeError(f'Caught RuntimeError in DataLoader worker process 0: {text}')

    with pytest.raises(SystemExit, match=f'error: .*{remedy}'):
        command_line.command(fail)([])


def test_a_word_that_the_runner_takes_beside_a_number():
    cfg = Config(dict(resume=False, optim_wrapper=dict(loss_scale=512.0)))
    options = {'resume': 'auto', 'optim_wrapper.loss_scale': 'dynamic', 'load_from': 'a.pth'}
    merge_cfg_options(cfg, {**options, 'randomness.seed': 1})
    assert (cfg.resume, cfg.load_from, cfg.randomness.seed) == ('auto', 'a.pth', 1)
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
