"""Write files completely or not at all."""

import csv
import errno
import fcntl
import io
import logging
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from mmengine.logging import print_log

from simclr_mm.errors import UserError

PARTIAL = '.*.partial'  # glob of unfinished files
_STALE = 60  # seconds since the last write
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # of a file system
_URL = re.compile(r'\w\w+:/')


def require_local(place: str | Path) -> None:
    """Refuse a URL, which would become a folder such as ``s3:``, also if it is a Path already.

    Raises:
        UserError: It is one.
    """
    if _URL.match(str(place)):
        raise UserError(
            f'{place} is a URL, and only checkpoints of a training go to one, by '
            'default_hooks.checkpoint.out_dir: name a place on this machine'
        )


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name only when the block ends without an error.

    The bytes go to a hidden file in the same folder, are flushed to disk, and are renamed in
    one step. A reader sees the old file or the complete new one. Each writer has its own
    hidden file; the last writer to finish wins.

    Args:
        path: The complete file. Its folder is created.

    Returns:
        A context manager that yields the file, open for writing bytes.
    """
    require_local(path)
    path = Path(path)
    if path.exists() and not path.is_file():  # such as /dev/null or a pipe
        with open(path, 'wb') as device:  # a folder is an error
            yield device
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name[:50]}.{uuid.uuid4().hex[:8]}.partial')
    try:
        with open(partial, 'xb') as file:
            _lock(file)  # tells remove_stale that somebody writes
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
    except OSError as error:
        if error.filename == str(partial):
            error.filename = str(path)  # the name that a user knows
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8, the whole of it or nothing; other bytes as escapes."""
    with atomic_file(path) as file:
        file.write(text.encode(errors='backslashreplace'))


def write_csv(path: str | Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table as CSV, as :func:`write_text` does."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows([columns, *rows])
    write_text(path, text.getvalue())


@contextmanager
def alone_in(folder: str | Path, lock: str = '.lock') -> Iterator[None]:
    """Hold a folder for one process, until the block or the process ends. The folder is created.

    ``lock`` is a file in it, which stays.

    Raises:
        UserError: Another process holds it, or it is a URL.
    """
    require_local(folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        with locked(Path(folder, lock), timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f'another process is working in {folder}: wait for it, or name another folder'
        ) from error


@contextmanager
def locked(lock: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock file, for which it waits; -1 is for ever.

    On a file system without locks it goes on, with a warning.

    Raises:
        Timeout: Another process holds it.
    """
    held = FileLock(lock, timeout=timeout)
    try:
        held.acquire()
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        print_log(
            f'{lock} cannot be locked ({error}): nothing keeps a second process from working here',
            'current',
            logging.WARNING,
        )
    try:
        yield
    finally:
        held.release()


def remove_stale(folder: str | Path) -> list[Path]:
    """Remove the partial files of killed writers in a folder.

    A file stays if it is locked, changed in the last minute, or lies on a file system without
    locks.

    Returns:
        The removed files.
    """
    removed = []
    for partial in Path(folder).glob(PARTIAL):
        try:
            with open(partial, 'r+b') as file:
                if time.time() - os.stat(partial).st_mtime > _STALE and _lock(file):
                    partial.unlink()
                    removed.append(partial)
        except OSError:  # finished meanwhile, or of another user
            continue
    return removed


def _lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed. False if it is locked or cannot be locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
