"""Every file in tools/ is a script, and every command has one."""

import os
import pkgutil
import runpy
import subprocess
import sys

import pytest
from helpers import ROOT

from simclr_mm import commands

SCRIPTS = sorted((ROOT / 'tools').glob('*.py'))
SHARED = {'command_line', 'model_card', 'runs'}  # rooms without a command


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.stem)
def test_a_script_calls_a_command_in_three_lines(script):
    names = runpy.run_path(str(script))
    room = names['main'].__module__.split('.')[2]
    assert room in {script.stem, 'evaluate', 'publish'}
    assert len([line for line in script.read_text().splitlines() if line]) == 3


def test_every_command_has_a_script():
    rooms = {module.name for module in pkgutil.iter_modules(commands.__path__)} - SHARED
    called = {runpy.run_path(str(each))['main'].__module__.split('.')[2] for each in SCRIPTS}
    assert rooms == called


def test_a_script_runs_from_anywhere(tmp_path):
    ended = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'report.py', '--help'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0 and 'usage: report.py' in ended.stdout
