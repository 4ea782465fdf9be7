"""SHA-256 of files: of their content, or of their names, sizes and modification times."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

_BLOCK = 1 << 20  # bytes


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, 'rb') as file:
        return bytes_hash(iter(lambda: file.read(_BLOCK), b''))


def bytes_hash(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of bytes, given in parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def listing_hash(root: str | Path, paths: Iterable[str]) -> str:
    """SHA-256 of names, sizes and modification times, without reading the files.

    Args:
        root: A folder. It is not hashed, so a moved folder keeps its hash.
        paths: Files, relative to it. Of a missing file, or one inside a tar file, only the name
            is hashed.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f'{path}\n'.encode(errors='surrogateescape'))
        try:
            stat = os.stat(os.path.join(root, path))
        except (FileNotFoundError, NotADirectoryError):  # also a link that leads nowhere
            continue
        digest.update(f'{stat.st_size} {stat.st_mtime_ns}\n'.encode())
    return digest.hexdigest()
