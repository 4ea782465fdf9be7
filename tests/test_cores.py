"""Cores, and what other processes use of them."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simclr_mm import cores
from simclr_mm.cores import OtherProcesses, core_count

STAT = """cpu  900 900 900 900 900 900 900 900 0 0
cpu0 {} 20 30 4000 5000 6 7 800 90 90
cpu1 {} 0 0 0 0 0 0 0 0 0
cpu2 77777 0 0 0 0 0 0 0 0 0
intr 1 2 3
"""
COMPUTE = 'import time\nwhile time.process_time() < {}: pass'


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """Set what Linux counts: for all in ticks of cores 0 and 1, for this process in seconds."""
    state = dict(now=0.0, own=0.0)
    tick = os.sysconf('SC_CLK_TCK')
    monkeypatch.setattr(cores, '_OF_ALL', str(tmp_path / 'stat'))
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1})
    monkeypatch.setattr(os, 'times', lambda: (state['own'], 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(cores.time, 'monotonic', lambda: state['now'])

    def count(now, first, second, own):
        state.update(now=now, own=own)
        (tmp_path / 'stat').write_text(STAT.format(int(first * tick), int(second * tick)))

    return count


def test_cores_of_others_by_hand(counted):
    counted(100, 50, 60, own=10)
    others = OtherProcesses()
    counted(110, 58, 66, own=13)  # 14 s of two cores in 10 s, 3 of them ours
    assert others.elapsed() == 10
    assert others.read() == pytest.approx(1.1)
    counted(120, 58, 66, own=14)  # counted late: never below 0
    assert others.read() == 0
    counted(121, 90, 90, own=14)  # nor above the cores
    assert others.read() == 2


@pytest.mark.skipif(not Path('/proc/stat').exists(), reason='only Linux counts per core')
def test_a_real_process_counts_and_a_worker_does_not(monkeypatch):
    others = OtherProcesses()
    program = f'{COMPUTE.format(1)}\nprint(flush=True)\ninput()'
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, '-c', program], **pipes) as process:
        process.stdout.readline()
        counted = cores._seconds_of_others() - others._seconds
        process.kill()
    assert counted > 0.8

    context = multiprocessing.get_context('fork')
    computed, end = context.Event(), context.Event()
    worker = context.Process(target=_work, args=(computed, end))
    worker.start()
    assert computed.wait(60)
    counted = cores._seconds_of_others()
    monkeypatch.setattr(cores, '_workers', lambda: [])
    assert cores._seconds_of_others() - counted > 0.4
    end.set()
    worker.join()
    assert cores._ticks(worker.pid) == 0  # it is gone


def _work(computed, end):
    exec(COMPUTE.format(0.5))
    computed.set()
    end.wait(60)


def test_where_nobody_counts_others_use_nothing(monkeypatch):
    monkeypatch.setattr(cores, '_OF_ALL', '/nowhere/stat')
    assert OtherProcesses().read() == 0


def test_cores_are_those_of_the_process(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {3, 5, 7})
    assert core_count() == 3
    monkeypatch.delattr(os, 'sched_getaffinity')
    monkeypatch.setattr(os, 'cpu_count', lambda: None)
    assert core_count() == 1
