"""Files that exist whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = '.*.partial'  # glob of what a killed process may leave behind


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only when the block ends without an error.

    The bytes go to a hidden file in the same folder, reach the disk, and are renamed in
    one step: a reader sees the file that was there before, or the complete new one.

    Args:
        path: Where the complete file shall stand. Its folder is created.

    Returns:
        A context manager that yields the file, open for writing bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    try:
        with open(partial, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
