"""What a user types behind --cfg-options and --out."""

import argparse
import os

import pytest

from simclr_mm.commands.command_line import KeyValues, out_file, out_folder, out_picture
from simclr_mm.errors import UserError


def _parse(*pairs: str) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues)
    return parser.parse_args(['--cfg-options', *pairs]).cfg_options


@pytest.mark.parametrize(
    'text, value',
    [
        ("dict(mode='max-autotune', dynamic=True)", dict(mode='max-autotune', dynamic=True)),
        ('{"a": [1, 2]}', {'a': [1, 2]}),
        ("[dict(type='RandomSobel', prob=0.5)]", [dict(type='RandomSobel', prob=0.5)]),
        ('my runs/epoch 3.pth', 'my runs/epoch 3.pth'),
        ('runs (1)/epoch [a] 3.pth', 'runs (1)/epoch [a] 3.pth'),
        ('train-{000..146}.tar', 'train-{000..146}.tar'),
        ('{000..146}.tar', '{000..146}.tar'),
        ('a=b', 'a=b'),
        ('[0.2, 1.0]', [0.2, 1.0]),
        ('(1,5)', (1, 5)),
        ('1,2', [1, 2]),
        ('true', True),
        ('None', None),
        ("'x'", 'x'),
        ("'[6]'", [6]),
        ('"(1)"', (1,)),
        ('1e-4', 1e-4),
    ],
)
def test_a_value(text, value):
    assert _parse(f'key={text}') == dict(key=value)


@pytest.mark.parametrize('pair', ['key', '=1', 'key=[1,2', 'key=dict(a=1,b)', 'key=f(a=1,b=2)'])
def test_what_is_no_value_is_named(pair, capsys):
    with pytest.raises(SystemExit):
        _parse(pair)
    assert f'--cfg-options {pair}: ' in capsys.readouterr().err


def test_a_place_to_write(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    for place in ('', 'new/folder'):
        assert out_folder(tmp_path / place) == tmp_path / place
    for place in ('file', 'new/file'):
        assert out_file(tmp_path / place) == tmp_path / place
    assert str(out_file(os.devnull)) == os.devnull
    for check, place in ((out_folder, 'file'), (out_folder, 'file/new'), (out_file, 'file/new')):
        with pytest.raises(UserError, match=f'{place} cannot be written: {tmp_path}/file is a fi'):
            check(tmp_path / place)
    with pytest.raises(UserError, match=r'\.csv is no picture format'):
        out_picture(tmp_path / 'a.csv')
    with pytest.raises(UserError, match='is a folder: name a file in it'):
        out_file(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ['file']
    monkeypatch.setattr(os, 'access', lambda path, mode: os.fspath(path) != str(tmp_path))
    for check in (out_folder, out_file):
        with pytest.raises(UserError, match=f'{tmp_path} is read-only; name another place'):
            check(tmp_path / 'new')
