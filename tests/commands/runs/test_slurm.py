"""Runs as jobs of Slurm: what is submitted, and what a job does when its time is over."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import DIGITS
from mmengine.config import Config

from simclr_mm.commands.runs import Run, RunFailed, Slurm, TrainAndEvaluate
from simclr_mm.commands.runs.slurm import _Job
from simclr_mm.errors import UserError
from simclr_mm.evaluation import EvaluationRun, Result, read_run

pytest.importorskip('submitit')


class Trainer(TrainAndEvaluate):
    """The training of the first run sleeps until its job is stopped; the second run fails."""

    def evaluate(self, run, checkpoint, device):
        raise AssertionError('nothing is trained')

    def do(self, run, device):
        if not run.folder.is_dir():
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR2)).start()
            self.call(run, ['-c', 'import time; time.sleep(60)'], device)
        if run.labels['width'] == 16:
            raise RunFailed('no loss')
        value = 'classification', 'Digits', 'test', 'pretrained encoder', 'knn', 'top1', 8.0
        return EvaluationRun('a.py', 'b.pth', 'c0ffee', 0, 30, [Result(*value)])


@pytest.fixture
def runs(tmp_path):
    cfg = Config.fromfile(DIGITS)
    runs = [Run('widths', dict(width=width), tmp_path / 'study', 'knn') for width in (8, 16)]
    for run in runs:
        run.write_config(cfg)
    runs[1].folder.mkdir(parents=True)
    return runs


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Commands of Slurm; sbatch keeps a copy of the script that it gets."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    keep = f'#!/bin/sh\ncat "$1" > {tmp_path}/script\necho Submitted batch job 7\n'
    for name, text in (('srun', '#!/bin/sh\n'), ('sacct', '#!/bin/sh\n'), ('sbatch', keep)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')


def test_a_job_has_the_settings_of_the_flag(commands, runs, tmp_path):
    slurm = Slurm(dict(partition=['a', 'b'], time=720, cpus_per_task=8))
    assert slurm.submit(Trainer(1), runs[0]).job_id == '7'
    script = (tmp_path / 'script').read_text()
    for line in (
        'partition=a,b',
        'time=720',
        'cpus-per-task=8',
        'gpus-per-node=1',
        'signal=USR2@90',
    ):
        assert f'#SBATCH --{line}\n' in script
    assert f'-m submitit.core._submit {runs[0].work_dir}/slurm' in script


def test_wrong_settings_are_named(commands, monkeypatch):
    with pytest.raises(UserError, match='--slurm: .*hours'):
        Slurm(dict(hours=3))
    monkeypatch.setenv('PATH', '')
    with pytest.raises(UserError, match='--slurm: .*"srun"'):
        Slurm({})


def test_a_job_that_is_stopped_ends_its_training(runs):
    job = _Job(Trainer(1).alone(), runs[1])
    assert str(job()) == 'no loss' and not runs[1].result_file.exists()
    left = subprocess.Popen(['sleep', '60'])
    job.trainer.running.add(left)
    again = job.checkpoint()
    assert left.wait() == -signal.SIGTERM
    assert not again.function.trainer.running and not again.function.trainer.stopped


@pytest.mark.slow
def test_runs_are_jobs_that_are_queued_again(runs, monkeypatch):
    """submitit's processes on this machine take the place of Slurm's."""
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([*sys.path, str(Path(__file__).parent)]))
    slurm, ended = Slurm(dict(time=10), cluster='local'), {}
    trainer = Trainer(2, slurm)
    trainer.do_missing(runs, 'test', lambda run, outcome: ended.update({run.name: outcome}))
    assert ended['width=8'] == read_run(runs[0].result_file)
    assert str(ended['width=16']) == 'no loss'
    logs = [job.paths.stdout.read_text().count('Requeued job') for job in trainer.jobs]
    assert sorted(logs) == [0, 1]
