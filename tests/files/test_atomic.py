"""A file appears whole or not at all, also when the writer is killed."""

import errno
import multiprocessing
import os
import signal

import pytest
from mmengine.config import Config

from simclr_mm.commands.command_line import out_folder
from simclr_mm.engine import build_runner
from simclr_mm.errors import UserError
from simclr_mm.files import atomic
from simclr_mm.files.atomic import PARTIAL, alone_in, atomic_file, remove_stale, write_text


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


@pytest.mark.skipif(not os.path.isdir('/proc'), reason='a folder in which nobody may write')
def test_an_error_names_the_file_and_not_its_hidden_one():
    with pytest.raises(OSError) as raised, atomic_file('/proc/a.txt'):
        pass
    assert raised.value.filename == '/proc/a.txt'


def test_a_url_is_no_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = 's3://bucket/a'
    cfg = Config(dict(runner_type='simclr_mm.Runner', work_dir=url))
    for write in (lambda: write_text(url, ''), lambda: out_folder(url), lambda: build_runner(cfg)):
        with pytest.raises(UserError, match='s3:/+bucket/a is a URL, and only checkpoints'):
            write()
    assert not list(tmp_path.iterdir())


def test_one_process_at_a_time_in_a_folder(tmp_path):
    with alone_in(tmp_path / 'new'):
        with pytest.raises(UserError, match='another process is working in .*new: wait'):
            with alone_in(tmp_path / 'new'):
                pytest.fail('it is held')
    with alone_in(tmp_path / 'new'):
        pass


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


def test_two_writers_have_a_file_each(tmp_path):
    path = tmp_path / 'a'
    with atomic_file(path) as first, atomic_file(path) as second:
        first.write(b'first')
        second.write(b'second, longer')
        assert len(list(tmp_path.glob(PARTIAL))) == 2
    assert path.read_bytes() == b'first'  # the last to finish
    assert list(tmp_path.iterdir()) == [path]


def test_only_stale_files_are_removed(tmp_path):
    left, young = tmp_path / '.a.00000000.partial', tmp_path / '.b.00000000.partial'
    for path in (left, young):
        path.write_bytes(b'half')
    os.utime(left, (0, 0))
    with atomic_file(tmp_path / 'c') as file:  # slow: no byte for long, but alive
        os.utime(file.name, (0, 0))
        assert remove_stale(tmp_path) == [left]
        file.write(b'whole')
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, 'c']


def test_names_as_long_as_the_file_system_takes(tmp_path):
    path = tmp_path / ('n' * 255)
    with atomic_file(path) as file:
        file.write(b'x')
    assert path.read_bytes() == b'x'


def test_what_is_no_file_is_written_to_as_it_is(tmp_path):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic_file(pipe) as file:
        file.write(b'text')
    assert os.read(reader, 10) == b'text' and pipe.is_fifo()
    os.close(reader)


@pytest.mark.parametrize('error', [OSError(errno.ENOLCK, 'No locks'), NotImplementedError()])
def test_a_disk_without_locks_is_said_and_used(tmp_path, monkeypatch, error):
    def refuse(self, *args, **kwargs):
        raise error

    monkeypatch.setattr('filelock.FileLock.acquire', refuse)
    warned = []
    monkeypatch.setattr(atomic, 'print_log', lambda text, *args: warned.append(text))
    with alone_in(tmp_path / 'new'):
        (tmp_path / 'new' / 'a').touch()
    assert len(warned) == 1 and 'nothing keeps a second process from working' in warned[0]


def test_a_lock_of_another_user_is_an_error(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, 'Permission denied', self.lock_file)

    monkeypatch.setattr('filelock.FileLock.acquire', refuse)
    with pytest.raises(PermissionError), alone_in(tmp_path / 'new'):
        pytest.fail('it is held')
