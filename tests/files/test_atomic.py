"""A file appears whole or not at all, also when the writer is killed."""

import multiprocessing
import os
import signal

import pytest

from simclr_mm.files.atomic import PARTIAL, atomic_file


def test_an_error_keeps_the_old_file(tmp_path):
    path = tmp_path / 'new' / 'a'
    with atomic_file(path) as file:
        file.write(b'old')
        assert not path.exists()
    with pytest.raises(KeyError), atomic_file(path) as file:
        file.write(b'half')
        raise KeyError
    assert path.read_bytes() == b'old'
    assert list(path.parent.iterdir()) == [path]


def _killed_while_writing(path) -> None:
    with atomic_file(path) as file:
        file.write(b'half')
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_keeps_the_old_file(tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(b'old')
    process = multiprocessing.get_context('fork').Process(
        target=_killed_while_writing, args=(path,)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert path.read_bytes() == b'old'
    assert [p.read_bytes() for p in tmp_path.glob(PARTIAL)] == [b'half']
