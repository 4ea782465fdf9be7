"""Checkpoints are read in one place: no other module loads a file that may run code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ('simclr_mm', 'tools', 'configs')
    for path in (ROOT / folder).rglob('*.py')
    if '.mim' not in path.parts
)
# What unpickles, by the last two parts of its name.
READERS = {
    'torch.load',
    'serialization.load',
    'jit.load',
    'hub.load',
    'load_url',
    'load_state_dict_from_url',
    'pickle.load',
    'pickle.loads',
    'pickle.Unpickler',
    'joblib.load',
    'dill.load',
    'pandas.read_pickle',
    'mmengine.load',
    'fileio.load',
}
# Functions of MMEngine that read through its CheckpointLoader.
LOADERS = {'CheckpointLoader.load_checkpoint', 'load_checkpoint', '_load_checkpoint'}


def _calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _called(path: Path, names: set) -> list:
    return [
        f'{path.relative_to(ROOT)}:{node.lineno} {name}'
        for name, node in _calls(path)
        if '.'.join(name.split('.')[-2:]) in names or name.split('.')[-1] in names
    ]


def test_only_safe_load_unpickles():
    found = [call for path in SOURCES for call in _called(path, READERS)]
    assert found and {call.split(':')[0] for call in found} == {
        'simclr_mm/checkpoints/safe_load.py'
    }


def test_numpy_never_unpickles():
    for path in SOURCES:
        for _name, node in _calls(path):
            assert 'allow_pickle' not in [key.arg for key in node.keywords], path


@pytest.mark.parametrize(
    'path', [path for path in SOURCES if _called(path, LOADERS)], ids=lambda path: path.stem
)
def test_users_of_mmengines_loader_make_it_safe(path):
    assert 'install_safe_loading()' in path.read_text()
