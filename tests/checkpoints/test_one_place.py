"""Checkpoints are read in one place, and MMEngine's loader is made safe by whoever uses it."""

import ast
import os

import pytest
import torch
from helpers import DIGITS, ROOT
from helpers.hostile import Call

from simclr_mm import get_model
from simclr_mm.apis.loading import load_encoder, open_checkpoint
from simclr_mm.checkpoints import read_checkpoint
from simclr_mm.checkpoints.foreign.weights import read_weights
from simclr_mm.commands.convert.conversion import convert
from simclr_mm.errors import CheckpointError

LOADERS = {'load', 'loads', 'Unpickler'}


@pytest.fixture
def evil(tmp_path):
    state = {'backbone.a': Call(os.system, f'touch {tmp_path}/it_ran')}
    torch.save(dict(state_dict=state), tmp_path / 'evil.pth')
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


@pytest.mark.parametrize('load', [load_encoder, lambda path: get_model(str(DIGITS), path)])
def test_a_file_is_read_once_and_checked_once(tmp_path, monkeypatch, load):
    model = get_model(str(DIGITS))
    meta = dict(cfg=model._config.pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'a.pth')
    read, checked = [], []
    torch_load, isfinite = torch.load, torch.isfinite
    monkeypatch.setattr(torch, 'load', lambda *a, **kw: read.append(a) or torch_load(*a, **kw))
    monkeypatch.setattr(torch, 'isfinite', lambda x: checked.append(x) or isfinite(x))
    load(tmp_path / 'a.pth')
    assert len(read) == 1
    assert len(checked) == sum(x.is_floating_point() for x in model.state_dict().values())


def test_only_safe_load_unpickles():
    """No other file names what can, but for the words that ranks of one job send each other."""
    names = {f'{module}.{name}' for module in ('torch', 'pickle') for name in LOADERS}
    found = set()
    for path in (ROOT / 'simclr_mm').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            imported = isinstance(node, ast.ImportFrom) and node.module in ('torch', 'pickle')
            if imported and LOADERS & {alias.name for alias in node.names}:
                found.add(path.stem)
            elif isinstance(node, ast.Attribute) and ast.unparse(node) in names:
                found.add(path.stem)
    assert found == {'safe_load', 'shared_work'}
