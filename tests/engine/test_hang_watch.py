"""Ranks that wait for each other say for whom, and end."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest
import torch
from digits_run import runner
from helpers.processes import free_port, launched, start
from mmengine.hooks import Hook

from simclr_mm.commands.command_line import command
from simclr_mm.engine import hang_watch
from simclr_mm.engine.hang_watch import HUNG, HangWatch, waits
from simclr_mm.errors import UserError


class Absent(Hook):
    """Rank 1 sleeps in the third step, and rank 2 is stopped as by a debugger."""

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == 3:
            watch = HangWatch._of_process
            assert watch._timeout == 60  # of the config
            watch._timeout, watch._interval = 3.0, 0.2
        if runner.iter + 1 == 3 and runner.rank > 0:
            if runner.rank == 2:
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(300)


def _rank(rank, port, folder):
    torch.set_num_threads(1)
    os.environ.update(launched(rank, 3, port))
    # Each machine's torchrun counts for itself how often its ranks were started again.
    os.environ.update(CUDA_VISIBLE_DEVICES='', TORCHELASTIC_RESTART_COUNT=str(rank))
    os.dup2(os.open(folder / f'{rank}', os.O_CREAT | os.O_WRONLY), 2)
    hang_watch._ANSWER = 2.0
    run = runner(folder / 'run', launcher='pytorch', **{'env_cfg.dist_cfg.timeout': 60})
    run.register_hook(Absent())
    run.train()


@pytest.mark.slow
def test_missing_ranks_are_named(tmp_path):
    port = free_port()
    processes = [start(_rank, rank, port, tmp_path) for rank in range(3)]
    processes[0].join(250)
    processes[2].kill()
    processes[1].join(250)
    processes[2].join(250)
    assert [process.exitcode for process in processes] == [HUNG, HUNG, -signal.SIGKILL]
    said = [(tmp_path / f'{rank}').read_text() for rank in range(2)]
    place = f'iteration 3, not waiting for others, at {__file__}:'
    for rank in range(2):
        assert f'rank {rank}: the ranks have waited for each other for 3 s' in said[rank]
        assert f'. Missing: rank 1 ({place}' in said[rank]
        assert ', rank 2 (no answer).' in said[rank]
        assert ', in run_iter\n' in said[rank]  # its stack
    assert ' This rank: iteration 3, in ' in said[0]
    assert f' This rank: {place}' in said[1] and 'time.sleep(300)' in said[1]


def test_a_rank_that_never_comes(tmp_path, monkeypatch):
    monkeypatch.setattr('simclr_mm.engine.runner.MARGIN', 0)
    for name, value in launched(0, 2, free_port()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match='the 2 ranks do not find each other .*1/2 clients'):
        runner(tmp_path, launcher='pytorch', **{'env_cfg.dist_cfg.timeout': 1})


ENDS = """
import os, time
from torch.distributed import TCPStore
from simclr_mm.engine.hang_watch import HangWatch
server = TCPStore('localhost', 0, is_master=True, wait_for_workers=False)
os.environ.update(MASTER_ADDR='localhost', MASTER_PORT=str(server.port))
HangWatch(0, 1, 0.001, 'ends', lambda: str(time.monotonic())).start()  # asks all the time
time.sleep(0.5)
"""


def test_a_process_ends_while_the_watch_asks():
    """Without care such a process aborts more often than not."""
    ranks = [subprocess.Popen([sys.executable, '-c', ENDS], stderr=subprocess.PIPE) for _ in '123']
    assert [process.communicate(timeout=60)[1] for process in ranks] == [b''] * 3
    assert [process.returncode for process in ranks] == [0] * 3


def _loses_a_rank(rank, port, folder, lost):
    os.environ.update(launched(rank, 3, port))
    os.dup2(os.open(folder / f'{rank}', os.O_CREAT | os.O_WRONLY), 2)
    hang_watch._ANSWER = 2.0

    @command
    def main(argv):
        torch.distributed.init_process_group('gloo')
        HangWatch(rank, 3, 60, 'lost', lambda: 'a step').start()
        for step in range(100):
            if rank == lost and step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            torch.distributed.all_reduce(torch.ones(1))
        raise AssertionError('nobody was missed')

    main([])


@pytest.mark.parametrize('lost', [0, 2])
def test_a_lost_rank_is_named_in_one_line(tmp_path, lost):
    port = free_port()
    processes = [start(_loses_a_rank, rank, port, tmp_path, lost) for rank in range(3)]
    for process in processes:
        process.join(120)
    left = [rank for rank in range(3) if rank != lost]
    assert [processes[rank].exitcode for rank in left] == [1, 1]
    for rank in left:
        (line,) = (tmp_path / f'{rank}').read_text().splitlines()[-1:]
        assert f'error: rank {rank} stops, because rank {lost} has ended: see its last li' in line
        assert 'Traceback' not in (tmp_path / f'{rank}').read_text()


def _stack_of(function):
    """The stack of a thread that the function holds up."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    time.sleep(0.1)
    return traceback.StackSummary.extract(
        traceback.walk_stack(sys._current_frames()[thread.ident]), lookup_lines=False
    )


def test_what_counts_as_waiting():
    assert waits(_stack_of(lambda: time.sleep(1))) is None
    assert waits([_frame('torch/autograd/graph.py', '_engine_run_backward')]).startswith('the back')
    sync = _frame('torch/nn/modules/_functions.py', 'forward')
    assert waits([sync]) == 'the statistics of SyncBatchNorm'
    assert waits([_frame('torch/distributed/distributed_c10d.py', 'all_reduce')]) == 'all_reduce'


def _frame(filename, name):
    return traceback.FrameSummary(filename, 1, name, lookup_line=False)


@pytest.mark.parametrize('seconds', [0, -1, 'long'])
def test_a_timeout_that_is_none(tmp_path, seconds):
    with pytest.raises(UserError, match='env_cfg.dist_cfg.timeout = '):
        runner(tmp_path, **{'env_cfg.dist_cfg.timeout': seconds})
