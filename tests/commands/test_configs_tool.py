"""``simclr-mm configs`` lists, shows and copies."""

import pytest
from helpers import CONFIGS
from helpers.tools import refusal, tool
from mmengine.config import Config

from simclr_mm.files.installed import config_files

NAME = 'simclr_r18_1xb512-coslr-100e_cifar100'


def settings(config):
    return (config if isinstance(config, Config) else Config.fromfile(config)).to_dict()


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ('args', 'expected'),
    [
        ((), {path.stem for path in CONFIGS.rglob('*_*.py') if '_base_' not in path.parts}),
        (('list', 'cifar100'), {NAME}),
        (('list', 'simclr_r18*_stl10'), {'simclr_r18_1xb256-adam-100e_stl10'}),
    ],
)
def test_list(args, expected, capsys):
    tool('configs.py', *args)
    assert set(capsys.readouterr().out.split()) == expected


def test_show(capsys):
    tool('configs.py', 'show', NAME, '--merged')
    text = capsys.readouterr().out
    assert '_base_' not in text and 'lr=' in text
    assert settings(Config.fromstring(text, '.py')) == settings(config_files()[NAME])


@pytest.mark.parametrize('name', [NAME, 'r18_1xb512-linear-coslr-100e_cifar10'])
@pytest.mark.parametrize('flags', [(), ('--merged',)])
def test_a_copy_is_the_same_config_anywhere(name, flags, empty_folder):
    tool('configs.py', 'copy', name, 'sub/mine.py', *flags)
    assert settings('sub/mine.py') == settings(config_files()[name])
    assert ('_base_' in (empty_folder / 'sub/mine.py').read_text()) == (not flags)


def test_every_copy_finds_its_bases(empty_folder):
    for name, path in config_files().items():
        tool('configs.py', 'copy', name, f'{name}.py')
        assert settings(f'{name}.py') == settings(path), name


def test_mistakes():
    assert 'there is no config file' in refusal('configs.py', 'show', 'absent')
    assert 'no config matches zzz' in refusal('configs.py', 'list', 'zzz')
    assert 'is a .py file' in refusal('configs.py', 'copy', NAME, 'mine.txt')
    tool('configs.py', 'copy', NAME, 'mine.py')
    assert 'mine.py exists' in refusal('configs.py', 'copy', NAME, 'mine.py')


@pytest.mark.parametrize(
    'args', [('show',), ('copy', NAME), ('show', NAME, 'x.py'), ('list', 'a', 'b')]
)
def test_wrong_arguments(args, capsys):
    with pytest.raises(SystemExit) as end:
        tool('configs.py', *args)
    assert end.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
