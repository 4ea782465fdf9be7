"""Every file in tools/ is a script, and every command has one."""

import os
import pkgutil
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import DIGITS, ROOT
from helpers.processes import free_port

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
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': ''},
        capture_output=True,
        text=True,
        timeout=100,
    )
    # The package is imported without a word.
    assert (
        ended.returncode == 0 and ended.stdout.startswith('usage: report.py') and not ended.stderr
    )


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


@pytest.mark.parametrize('code', [0, 1, 75])
def test_a_slurm_job_queues_itself_again_when_it_was_stopped(code, tmp_path):
    for name, lines in (
        ('sbatch', 'printf "%s|" "$@"; for last; do :; done; sh -c "${last#--wrap=}"'),
        ('srun', f'printf "%s|" srun "$@"; exit {code}'),
        ('scontrol', 'printf "%s|" scontrol "$@"'),
    ):
        (tmp_path / name).write_text(f'#!/bin/sh\n{lines}\n')
        (tmp_path / name).chmod(0o755)
    path = f'{tmp_path}:{os.environ["PATH"]}'
    given = ('part', 'job', 'a b.py', 'work dir', '--data', 'c d')
    ended = _launch('slurm_train.sh', *given, PATH=path, REQUEUE='1', SLURM_JOB_ID='12')
    assert ended.returncode == code
    assert '|--signal=USR2@120|--requeue|' in ended.stdout
    ran = ended.stdout.partition('|srun|')[2]
    assert ran.startswith('--cpus-per-task=8|')
    expected = 'train.py|a b.py|--work-dir=work dir|--launcher|slurm|--data|c d|--resume|'
    assert expected + ('scontrol|requeue|12|' if code == 75 else '') == ran[ran.index('train.py') :]
    refused = _launch('slurm_train.sh', *given, '--resume=a.pth', PATH=path, REQUEUE='1')
    assert refused.returncode == 2 and 'leave --resume=a.pth out' in refused.stderr
    now = _launch('slurm_train.sh', *given, PATH=path)
    assert now.stdout.startswith('srun|-p|part|') and now.stdout.endswith('|--data|c d|')


@pytest.mark.slow
def test_kill_ends_the_ranks_after_they_have_saved(tmp_path):
    options = ['--work-dir', str(tmp_path), '--no-validate', '--cfg-options', 'log_level=INFO']
    options += ['default_hooks.logger.interval=1', 'train_dataloader.num_workers=1']
    process = subprocess.Popen(
        [ROOT / 'tools' / 'dist_train.sh', DIGITS, '2', *options],
        env={
            **os.environ,
            'PYTHON': sys.executable,
            'PORT': str(free_port()),
            'CUDA_VISIBLE_DEVICES': '',
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if 'Epoch(train)' in line:
            break
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + 15
    saved = Path((tmp_path / 'last_checkpoint').read_text())
    assert saved.parent == tmp_path and saved.is_file() and f'{saved} is complete' in rest
    of_it = [
        file.parent.name for file in Path('/proc').glob('[0-9]*/cmdline') if _names(file, tmp_path)
    ]
    assert not of_it


def _names(cmdline, folder):
    try:
        return str(folder).encode() in cmdline.read_bytes()
    except OSError:  # it has ended
        return False


def test_a_launcher_repeats_no_traceback_of_a_rank(tmp_path):
    ended = _launch('dist_train.sh', 'absent.py', '1', PYTHON=sys.executable, PORT='0')
    assert ended.returncode == 1 and 'Traceback' not in ended.stderr
    assert "there is no config file 'absent.py'" in ended.stderr
    assert ended.stderr.splitlines()[-1] == 'rank 0 ended first, with exit code 1'


def test_slurm_tests_a_checkpoint(tmp_path):
    (tmp_path / 'srun').write_text("""#!/bin/sh\nprintf '%s|' "$@"\n""")
    (tmp_path / 'srun').chmod(0o755)
    given = ('part', 'job', 'a b.py', 'e f.pth', '--data', 'c d')
    path = f'{tmp_path}:{os.environ["PATH"]}'
    ended = _launch('slurm_test.sh', *given, GPUS='2', REQUEUE='1', PATH=path)
    assert ended.stdout.startswith('-p|part|--job-name=job|--gres=gpu:2|--ntasks=2|')
    expected = f'{ROOT}/tools/test.py|a b.py|e f.pth|--launcher|slurm|--data|c d|'
    assert ended.stdout.endswith(expected)
