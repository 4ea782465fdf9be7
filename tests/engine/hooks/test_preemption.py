"""A signal stops a run between two steps, and the resumed run is the run that was not stopped."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from digits_run import BY_ITERATION, losses, runner
from helpers.processes import free_port, launched, start
from mmengine.hooks import Hook

from simclr_mm.engine import signals
from simclr_mm.engine.hooks.preemption import PREEMPTED
from simclr_mm.errors import UserError

VALIDATED = {
    'train_cfg.val_interval': 1,
    'val_dataloader.dataset.gallery.indices': 60,
    'val_dataloader.dataset.query.indices': 40,
    'val_dataloader.batch_size': 20,
}
BY_STEP = {**BY_ITERATION, 'default_hooks.checkpoint.by_epoch': False}


class Signal(Hook):
    """Sends this process a signal in a step, as a cluster would."""

    def __init__(self, number, train=None, val=None, times=1):
        self.number, self.train, self.val, self.times = number, train, val, times

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.train:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
                time.sleep(0.01)

    def after_val_iter(self, runner, *args, **kwargs):
        if runner.iter == self.val:
            os.kill(os.getpid(), self.number)


def stopped(folder, hook, validate=False, **options):
    """The run, stopped by the hook; and the names of its checkpoints."""
    run = runner(folder, validate, **options)
    run.register_hook(hook)
    with pytest.raises(SystemExit) as end:
        run.train()
    assert end.value.code == PREEMPTED == 75
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # nothing disturbs the end
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    return run


def moved(before, after):
    """Without the logs: two runs of one second would share a file."""
    shutil.copytree(before, after, ignore=lambda folder, names: [n for n in names if n[:2] == '20'])


def saved(folder):
    return sorted(path.name for path in folder.glob('*.pth') if not path.name.startswith('best'))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    found = {}
    for name, options in (('epochs', {}), ('steps', BY_STEP)):
        run = runner(folder / name, **options)
        run.train()
        found[name] = losses(run)
        assert len(found[name]) == 12
    return found


@pytest.mark.parametrize(
    'kind, step, number, names, after',
    [
        # The last step of an epoch: its end is still to come.
        (
            'epochs',
            4,
            signal.SIGUSR2,
            ['iter_4.pth'],
            ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'],
        ),
        (
            'epochs',
            6,
            signal.SIGTERM,
            ['epoch_1.pth', 'iter_6.pth'],
            ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'],
        ),
        ('steps', 7, signal.SIGTERM, ['iter_5.pth', 'iter_6.pth', 'iter_7.pth'], None),
    ],
)
def test_the_resumed_run_is_the_whole_run(tmp_path, whole, kind, step, number, names, after):
    options = BY_STEP if kind == 'steps' else {}
    # systemd signals the launcher and the ranks, and the launcher the ranks again.
    run = stopped(tmp_path / 'first', Signal(number, train=step, times=2), **options)
    assert saved(tmp_path / 'first') == names
    first = losses(run)
    moved(tmp_path / 'first', tmp_path / 'rest')
    rest = runner(tmp_path / 'rest', **options, resume=True)
    rest.train()
    assert {**first, **losses(rest)} == whole[kind]
    assert max(first) == step == min(losses(rest)) - 1
    assert after is None or saved(tmp_path / 'rest') == after


@pytest.mark.slow
def test_in_a_validation_nothing_is_saved_twice(tmp_path):
    whole = runner(tmp_path / 'whole', True, **VALIDATED)
    whole.train()
    run = stopped(tmp_path / 'a', Signal(signal.SIGTERM, val=8), True, **VALIDATED)
    assert saved(tmp_path / 'a') == ['epoch_1.pth', 'epoch_2.pth']
    moved(tmp_path / 'a', tmp_path / 'a2')
    rest = runner(tmp_path / 'a2', True, **VALIDATED, resume=True)
    rest.train()
    assert min(losses(rest)) == 9
    assert {**losses(run), **losses(rest)} == losses(whole)

    # Where no checkpoint was due before it.
    options = {**VALIDATED, 'default_hooks.checkpoint.interval': 3}
    run = stopped(tmp_path / 'b', Signal(signal.SIGTERM, val=8), True, **options)
    assert saved(tmp_path / 'b') == ['iter_8.pth']
    moved(tmp_path / 'b', tmp_path / 'b2')
    rest = runner(tmp_path / 'b2', True, **options, resume=True)
    rest.train()
    assert {**losses(run), **losses(rest)} == losses(whole)
    scores = [json.loads(line) for line in (Path(rest.log_dir) / 'vis_data/scalars.json').open()]
    assert [each['step'] for each in scores if 'knn/top1' in each] == [2, 3]


@pytest.mark.slow
def test_averaged_weights_are_not_saved_as_those_of_the_training(tmp_path):
    options = {
        **VALIDATED,
        'default_hooks.checkpoint.interval': 3,
        'custom_hooks': [dict(type='EMAHook', momentum=0.5)],
    }
    whole = runner(tmp_path / 'whole', True, **options)
    whole.train()
    run = stopped(tmp_path / 'a', Signal(signal.SIGTERM, val=8), True, **options)
    assert saved(tmp_path / 'a') == ['iter_9.pth']  # after the validation and a step
    moved(tmp_path / 'a', tmp_path / 'a2')
    rest = runner(tmp_path / 'a2', True, **options, resume=True)
    rest.train()
    assert {**losses(run), **losses(rest)} == losses(whole)


def test_nothing_disturbs_the_end(tmp_path):
    """Slurm sends SIGTERM as soon as a rank has ended, whichever signals announce it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        signals.listen([signal.SIGUSR2])
        signals.ignore()
        for name in (signal.SIGUSR2, signal.SIGTERM):
            assert signal.getsignal(name) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def test_handlers_come_back(tmp_path):
    runner(tmp_path).train()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signals.received() is None


@pytest.mark.parametrize('name', ['SIGKILL', 'TERM', 15])
def test_a_signal_that_cannot_be_handled_is_named(tmp_path, name):
    with pytest.raises(UserError, match='default_hooks.preemption.signals'):
        runner(tmp_path, **{'default_hooks.preemption.signals': [name]})


# --- Ranks ----------------------------------------------------------------------------


class Slow(Hook):
    """Leaves time for a kill, tells how far the run is, and keeps this rank's losses."""

    def __init__(self, file):
        self.file = file

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with self.file.open('a') as file:
            file.write(f'{runner.iter + 1} {outputs["loss"].item()!r}\n')
        time.sleep(0.05)


def _rank(rank, port, folder, name, resume):
    os.setpgrp()  # so that a signal to the group reaches the workers too
    torch.set_num_threads(1)
    os.environ.update(launched(rank, 2, port))
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    options = {'train_dataloader.num_workers': 2, 'train_dataloader.batch_size': 8}
    run = runner(folder / name, launcher='pytorch', resume=resume, **options)
    run.register_hook(Slow(folder / f'{name}{rank}'))
    run.train()


def ranks(folder, name, resume=False, kill_after=None, only=(0, 1)):
    """Train on two ranks, and signal some of them after a step. The exit codes."""
    port = free_port()
    processes = [start(_rank, rank, port, folder, name, resume) for rank in range(2)]
    if kill_after is not None:
        told = folder / f'{name}1'
        while not told.exists() or f'\n{kill_after} ' not in '\n' + told.read_text():
            assert all(process.exitcode is None for process in processes)
            time.sleep(0.005)
        for rank in only:
            os.killpg(processes[rank].pid, signal.SIGTERM)
    for process in processes:
        process.join(250)
    return [process.exitcode for process in processes]


def told(folder, name):
    lines = (folder / name).read_text().splitlines()
    return [line.split() for line in lines]


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp('unbroken')
    assert ranks(folder, 'run') == [0, 0]
    return [told(folder, f'run{rank}') for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize('step, only', [(1, (1,)), (6, (0, 1))])
def test_groups_of_ranks_and_workers_save_and_go_on(tmp_path, unbroken, step, only):
    assert ranks(tmp_path, 'run', kill_after=step, only=only) == [PREEMPTED, PREEMPTED]
    assert len(told(tmp_path, 'run0')) in range(step, step + 4)
    assert ranks(tmp_path, 'run', resume=True) == [0, 0]
    assert [told(tmp_path, f'run{rank}') for rank in range(2)] == unbroken


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path):
    process = start(_alone, tmp_path)
    while not (tmp_path / 'slow').exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    process.join(250)
    assert process.exitcode == -signal.SIGTERM


class Stuck(Hook):
    def after_train_iter(self, runner, *args, **kwargs):
        (Path(runner.work_dir) / 'slow').write_text('')
        time.sleep(60)


def _alone(folder):
    signals._TOGETHER = 0.2
    run = runner(folder)
    run.register_hook(Stuck())
    run.train()


def test_a_checkpoint_hook_that_would_save_nothing(tmp_path):
    options = {'default_hooks.checkpoint': dict(_delete_=True, type='CheckpointHook')}
    with pytest.raises(UserError, match="write type='simclr_mm.CheckpointHook'"):
        runner(tmp_path, **options).train()
    options['default_hooks.preemption'] = None
    runner(tmp_path, **options, **{'train_cfg.max_epochs': 1, 'param_scheduler': []}).train()
