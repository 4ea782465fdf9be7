"""A run whose checkpoints lie on an S3 server: killed, and resumed on another machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
from digits_run import EVERY_ITERATION, losses, runner
from helpers.processes import free_port, start
from mmengine.hooks import Hook

OPTIONS = {
    **EVERY_ITERATION,
    'default_hooks.checkpoint.max_keep_ckpts': 2,
    'train_cfg.max_epochs': 2,
}
ON_S3 = {**OPTIONS, 'default_hooks.checkpoint.out_dir': 's3://bucket/runs'}


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A bucket of an S3 server on this machine; fsspec finds it through its own variables."""
    # Not in the [test] extra: 55 packages for one test. memory:// is tested always.
    for package in ('moto', 'flask', 's3fs'):
        pytest.importorskip(package, reason="needs: pip install 'moto[server]' s3fs")
    url = f'http://127.0.0.1:{free_port()}'
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'test')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'test')
    monkeypatch.setenv('FSSPEC_S3_ENDPOINT_URL', url)
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'home'))
    server = subprocess.Popen(
        [sys.executable, '-m', 'moto.server', '-p', url.rpartition(':')[2]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        system = fsspec.filesystem('s3', endpoint_url=url, skip_instance_cache=True)
        for _ in range(120):
            try:
                system.mkdir('bucket')
                break
            except OSError:
                time.sleep(1)
        yield system
    finally:
        server.terminate()
        server.wait()


class KillAt(Hook):
    """Ends the process after a step, before its checkpoint."""

    priority = 'HIGHEST'

    def __init__(self, step):
        self.step = step

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def _train(folder, step, options):
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    run = runner(folder, **options)
    if step:
        run.register_hook(KillAt(step))
    run.train()
    (folder / 'losses.json').write_text(json.dumps(losses(run)))


def train(folder, step=None, **options):
    process = start(_train, Path(folder), step, options)
    process.join(250)
    return process.exitcode


@pytest.mark.slow
def test_a_run_on_s3_is_killed_and_goes_on_elsewhere(s3, tmp_path):
    assert train(tmp_path / 'a' / 'run', 6, **ON_S3) == -signal.SIGKILL
    names = {path.rpartition('/')[2] for path in s3.ls('bucket/runs/run', detail=False)}
    assert names == {'iter_4.pth', 'iter_5.pth', 'last_checkpoint'}
    assert train(tmp_path / 'b' / 'run', **ON_S3, resume=True) == 0
    assert train(tmp_path / 'whole', **OPTIONS) == 0
    rest, whole = (
        json.loads((tmp_path / name / 'losses.json').read_text()) for name in ('b/run', 'whole')
    )
    assert len(whole) == 8
    assert rest == {step: loss for step, loss in whole.items() if int(step) > 5}
    s3.invalidate_cache()
    names = {path.rpartition('/')[2] for path in s3.ls('bucket/runs/run', detail=False)}
    assert names == {'iter_7.pth', 'iter_8.pth', 'last_checkpoint'}
    assert not list((tmp_path / 'b').rglob('*.pth'))
