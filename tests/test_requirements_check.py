import importlib
import os
import subprocess
import sys
from importlib import metadata, util

import pytest
from helpers.processes import run_ranks

from simclr_mm import requirements_check


def test_none_says_what_to_install(monkeypatch):
    monkeypatch.setattr(util, 'find_spec', lambda name: None if name == 'mmcv' else name)
    with pytest.raises(ImportError, match=r'needs mmcv\. .*simclr_mm\[onedl\]'):
        requirements_check.check_openmmlab()


@pytest.mark.parametrize('twin', ['mmengine', 'mmcv-lite', 'mmcv', 'mmpretrain'])
def test_both_say_which_to_remove(monkeypatch, twin):
    name = twin.removesuffix('-lite')
    monkeypatch.setattr(
        requirements_check, '_is_installed', lambda dist: dist in (twin, f'onedl-{name}')
    )
    with pytest.raises(ImportError, match=f'onedl-{name} and {twin} are both installed'):
        requirements_check.check_openmmlab()


def test_one_of_each_is_fine(monkeypatch):
    monkeypatch.setattr(
        requirements_check, '_is_installed', lambda dist: dist in ('mmengine', 'mmcv', 'mmpretrain')
    )
    requirements_check.check_openmmlab()


def test_distributions_are_found():
    assert requirements_check._is_installed('torch')
    assert not requirements_check._is_installed('no-such-distribution')


ENDS_AT_TORCH = """
import os, sys
class Finder:
    def find_spec(name, *args):
        if name == 'torch':
            sys.exit(str([os.environ.get(key) for key in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')]))
sys.meta_path.insert(0, Finder)
import simclr_mm
"""


@pytest.mark.parametrize(
    'given, expected',
    [
        ({}, ['PASSIVE', '10000']),
        (dict(OMP_WAIT_POLICY='ACTIVE'), ['ACTIVE', None]),
        (dict(GOMP_SPINCOUNT='7'), [None, '7']),
    ],
)
def test_idle_threads_sleep_before_torch_is_loaded(given, expected):
    ours = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    ended = subprocess.run(
        [sys.executable, '-c', ENDS_AT_TORCH],
        env={**environment, **given},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr.strip() == str(expected)


def test_compiled_operators_are_never_imported():
    run_ranks(_import_everything, 1)


def _import_everything(rank):
    for package in ('apis', 'engine', 'models', 'transforms'):
        importlib.import_module(f'simclr_mm.{package}')
    assert not [module for module in sys.modules if module.startswith('mmcv._ext')]


@pytest.mark.portable
def test_version_is_the_installed_one():
    import simclr_mm

    assert metadata.version('simclr_mm') == simclr_mm.__version__


def test_a_missing_package_of_onedl_is_not_announced(monkeypatch, capsys):
    said = dict(datasets='before\nCould not import OneDL\nafter\n', models='more\n')

    def import_module(name):
        print(said[name.removeprefix('mmpretrain.')], end='')

    monkeypatch.setattr(requirements_check, 'import_module', import_module)
    requirements_check.import_quietly()
    assert capsys.readouterr().out == 'before\nafter\nmore\n'


def test_windows_says_where_it_runs(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'win32')
    with pytest.raises(ImportError, match='Use the Windows Subsystem for Linux: "wsl --install"'):
        requirements_check.check_system()
