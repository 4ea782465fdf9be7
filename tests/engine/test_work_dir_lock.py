"""Two runs in one work dir, and locks that nobody holds any more."""

import multiprocessing
import os
import re
import signal
import socket
import time

import pytest
from digits_run import runner
from helpers.processes import start

from simclr_mm.engine import work_dir_lock
from simclr_mm.engine.work_dir_lock import WorkDirLock
from simclr_mm.errors import UserError


class Warnings(list):
    warning = list.append


def _wait_for(file):
    while not file.exists():
        time.sleep(0.02)


def _hold(folder):
    with WorkDirLock(str(folder), Warnings()):
        # A child that lives on, as a loader's worker may.
        multiprocessing.get_context('fork').Process(
            target=_wait_for, args=(folder / 'end',), daemon=True
        ).start()
        (folder / 'held').touch()
        _wait_for(folder / 'end')


@pytest.fixture
def holder(tmp_path):
    process = start(_hold, tmp_path)
    _wait_for(tmp_path / 'held')
    yield process
    (tmp_path / 'end').touch()
    process.join()


def test_a_second_run_is_told_who_holds_the_work_dir(tmp_path, holder):
    with pytest.raises(UserError) as error:
        runner(tmp_path).train()
    assert re.fullmatch(
        rf'{re.escape(str(tmp_path))} is in use by process {holder.pid} on '
        rf'{re.escape(socket.gethostname())} since \d+-\d\d-\d\d \d\d:\d\d:\d\d: wait for '
        r'it, end it, or choose another --work-dir\.',
        str(error.value),
    )


def test_a_killed_run_holds_nothing_though_its_workers_live(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with WorkDirLock(str(tmp_path), Warnings()):
        text = (tmp_path / '.lock').read_text()
    assert text.startswith(f'process {os.getpid()} on ')


def test_a_run_gives_the_work_dir_back(tmp_path):
    for _ in range(2):
        with WorkDirLock(str(tmp_path), Warnings()):
            pass
    with pytest.raises(KeyError):
        with WorkDirLock(str(tmp_path), Warnings()):
            raise KeyError
    with WorkDirLock(str(tmp_path), Warnings()):
        pass


def _no_locks(*args):
    raise OSError(37, 'No locks available')


@pytest.mark.parametrize('fault', ['no locks', 'no such folder'])
def test_where_nothing_can_be_locked_the_run_goes_on(tmp_path, monkeypatch, fault):
    if fault == 'no locks':
        monkeypatch.setattr(work_dir_lock.fcntl, 'lockf', _no_locks)
    folder = '/proc/1/fdinfo' if fault == 'no such folder' else str(tmp_path)
    warnings = Warnings()
    with WorkDirLock(folder, warnings):
        pass
    assert len(warnings) == 1 and 'cannot be locked' in warnings[0]
