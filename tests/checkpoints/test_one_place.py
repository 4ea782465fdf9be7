"""Checkpoints are read in one place, and MMEngine's loader is made safe by whoever uses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from simclr_mm import get_model
from simclr_mm.apis.loading import load_encoder, open_checkpoint
from simclr_mm.checkpoints import read_checkpoint, safe_load
from simclr_mm.checkpoints.foreign.weights import read_weights
from simclr_mm.commands.convert import convert
from simclr_mm.errors import CheckpointError

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / 'configs' / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'


class Evil:
    def __init__(self, marker):
        self.command = f'touch {marker}'

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def evil(tmp_path):
    torch.save(dict(state_dict={'backbone.a': Evil(tmp_path / 'it_ran')}), tmp_path / 'evil.pth')
    yield str(tmp_path / 'evil.pth')
    assert not (tmp_path / 'it_ran').exists()


@pytest.mark.parametrize(
    'read',
    [
        read_checkpoint,
        read_weights,
        load_encoder,
        convert,
        open_checkpoint,
        lambda path: get_model(str(DIGITS), pretrained=path),
    ],
)
def test_every_way_in_refuses(evil, read):
    with pytest.raises(CheckpointError, match='is refused: it asks for .*system'):
        read(evil)


def test_a_file_is_read_once_and_checked_once(tmp_path, monkeypatch):
    model = get_model(str(DIGITS))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    read, checked = [], []
    load, isfinite = torch.load, torch.isfinite
    monkeypatch.setattr(torch, 'load', lambda *a, **kw: read.append(a) or load(*a, **kw))
    monkeypatch.setattr(torch, 'isfinite', lambda x: checked.append(x) or isfinite(x))
    get_model(str(DIGITS), pretrained=tmp_path / 'a.pth')
    assert len(read) == 1
    assert len(checked) == sum(x.is_floating_point() for x in model.state_dict().values())


def test_only_safe_load_unpickles(tmp_path):
    """A trap under torch.load and pickle says who called it while a tool evaluates a file."""
    torch.save(dict(state_dict=get_model(str(DIGITS)).state_dict()), tmp_path / 'a.pth')
    trap = f"""
import pickle, sys, torch
from pathlib import Path
package = Path({str(ROOT)!r}, 'simclr_mm')
def watch(module, name):
    real = getattr(module, name)
    def called(*args, **kwargs):
        caller = Path(sys._getframe(1).f_code.co_filename)
        if package in caller.parents:
            assert caller == Path({safe_load.__file__!r}), caller
            print('unpickled by safe_load')
        return real(*args, **kwargs)
    setattr(module, name, called)
watch(torch, 'load'); watch(pickle, 'load'); watch(pickle, 'loads')
import runpy
sys.argv = ['test.py', {str(DIGITS)!r}, {str(tmp_path / 'a.pth')!r}]
runpy.run_path({str(ROOT / 'tools' / 'test.py')!r}, run_name='__main__')
"""
    ended = subprocess.run(
        [sys.executable, '-c', trap],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert 'unpickled by safe_load' in ended.stdout
