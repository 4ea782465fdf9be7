"""Files by URL, on the web or on any storage that fsspec reaches, such as s3:// and gs://."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from simclr_mm.errors import MissingPackageError, UserError

from .http import transfer

_BLOCK = 1 << 20  # bytes
_FINAL = (FileNotFoundError, PermissionError, NotImplementedError, TypeError, ValueError)


class StorageError(UserError, OSError):
    """A file on a storage cannot be read or written.

    Args:
        message: In one line.
        may_pass: Whether a later attempt could succeed.
    """

    def __init__(self, message: str, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def is_url(location: str) -> bool:
    """Whether a location has a scheme, as in ``https://`` or ``s3://``."""
    return '://' in location


def file_name(location: str) -> str:
    """The name of a file by its path or URL, without a URL's query, which may be a signature."""
    return Path(urlsplit(location).path if is_url(location) else location).name


def is_web(url: str) -> bool:
    """Whether a URL is http or https. :func:`fetch` alone reads those."""
    return url.startswith(('http://', 'https://'))


def fetch(url: str, file: BinaryIO, name: str, quiet: bool = False) -> None:
    """Write the content of a URL into a file. ``name`` and ``quiet`` are for a progress bar.

    Raises:
        OSError: It cannot be read.
        http.client.HTTPException: The server does not speak HTTP.
        MissingPackageError: fsspec needs another package for this scheme.
    """
    if is_web(url):
        transfer(url, file, name, quiet)
        return
    with _reached(url, 'read') as (system, path), system.open(path, 'rb') as source:
        shutil.copyfileobj(source, file, _BLOCK)


def version(url: str) -> str:
    """A text that changes when the file does: a hash of its size, date and the like."""
    with _reached(url, 'read') as (system, path):
        return str(system.ukey(path))


def read(url: str) -> bytes | None:
    """The content of a file, or None if there is none."""
    with _reached(url, 'read') as (system, path):
        try:
            return system.cat_file(path)
        except FileNotFoundError:
            return None


def write(url: str, content: bytes) -> None:
    """Write a whole file. On an object store the new content appears in one step."""
    with _reached(url, 'written') as (system, path):
        system.pipe_file(path, content)


def make_folder(url: str) -> None:
    """Make the last folder of a URL, if the storage has folders and this one is missing."""
    with _reached(url, 'made') as (system, path):
        if not system.isdir(path):
            system.mkdir(path, create_parents=False)


def remove(url: str) -> None:
    """Remove a file. Nothing happens if there is none."""
    with _reached(url, 'removed') as (system, path), contextlib.suppress(FileNotFoundError):
        system.rm_file(path)


@contextlib.contextmanager
def _reached(url: str, what: str) -> Iterator[tuple[Any, str]]:
    """The file system and the path of a URL. Every error inside gets its name."""
    try:
        from fsspec.core import url_to_fs

        yield url_to_fs(url)
    except ImportError as error:  # names the package
        raise MissingPackageError(
            f"{url}: {error}: pip install 'simclr_mm[storage]', or that package alone"
        ) from error
    except Exception as error:  # each store raises errors of its own types
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise StorageError(
            f'{url} cannot be {what} ({reason[:300]}): look at the URL, and at the rights and the '
            'settings of its store',
            not isinstance(error, _FINAL),
        ) from error
