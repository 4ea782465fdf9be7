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
SHARED = {'command_line', 'model_card', 'runs', 'shown_run'}  # rooms without a command


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


def _launch(script, *arguments, **variables):
    return subprocess.run(
        [ROOT / 'tools' / script, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
@pytest.mark.parametrize('processes', ['two', '0', '-1', ''])
def test_a_launcher_names_a_wrong_number_of_processes(script, processes):
    files = ['a.py', 'b.pth'][: 1 + (script == 'dist_test.sh')]
    ended = _launch(script, *files, processes, PYTHON='echo')
    assert ended.returncode == 2 and not ended.stdout
    assert ended.stderr.count('\n') == 1 and f"PROCESSES is '{processes}'" in ended.stderr


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_test.sh'])
def test_a_launcher_names_a_wrong_number_of_gpus(script):
    ended = _launch(script, *'abcd', GPUS='two')
    assert ended.returncode == 2 and "GPUS is 'two'" in ended.stderr


@pytest.mark.parametrize(
    ('script', 'given', 'passed'),
    [
        ('dist_train.sh', ('a b.py', '2', '--data', 'c d'), 'train.py|a b.py|'),
        ('dist_test.sh', ('a b.py', 'e f.pth', '2', '--data', 'c d'), 'test.py|a b.py|'),
    ],
)
def test_a_launcher_keeps_spaces(script, given, passed, tmp_path):
    python = tmp_path / 'python'
    python.write_text("""#!/bin/sh\nprintf '%s|' "$@"\n""")
    python.chmod(0o755)
    text = _launch(script, *given, PYTHON=str(python)).stdout
    assert passed in text and '|--data|c d|' in text
    assert ('|e f.pth|' in text) == (script == 'dist_test.sh')


def test_a_launcher_repeats_no_traceback_of_a_rank(tmp_path):
    ended = _launch('dist_train.sh', 'absent.py', '1', PYTHON=sys.executable, PORT='0')
    assert ended.returncode == 1 and 'Traceback' not in ended.stderr
    assert "there is no config file 'absent.py'" in ended.stderr
    assert ended.stderr.splitlines()[-1] == 'rank 0 ended first, with exit code 1'
