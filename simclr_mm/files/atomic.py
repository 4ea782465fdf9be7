"""Files that exist whole or not at all."""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = '.*.partial'  # glob of unfinished files
_STALE = 60  # seconds since the last write


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only when the block ends without an error.

    The bytes go to a hidden file in the same folder, reach the disk, and are renamed in
    one step: a reader sees the old file or the complete new one. Each writer has a hidden
    file of its own; of two writers, the last to finish wins.

    Args:
        path: Where the complete file shall stand. Its folder is created. What is there and
            no file, such as /dev/null or a pipe, is written to as it is.

    Returns:
        A context manager that yields the file, open for writing bytes.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
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
    finally:
        partial.unlink(missing_ok=True)


def remove_stale(folder: str | Path) -> list[Path]:
    """Remove what killed writers left in a folder.

    A file that somebody may still write stays: one that is locked, that changed in the
    last minute, or that lies on a file system without locks.

    Returns:
        What was removed.
    """
    removed = []
    for partial in Path(folder).glob(PARTIAL):
        try:
            with open(partial, 'r+b') as file:
                if time.time() - os.stat(partial).st_mtime > _STALE and _lock(file):
                    partial.unlink()
                    removed.append(partial)
        except OSError:  # finished meanwhile, or not ours
            continue
    return removed


def _lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed; False where another has it, or locks are unknown."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
