"""A cache of bounded size for shards from the web."""

import contextlib
import os
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.cache import cache_folder, cache_home
from simclr_mm.files.hashes import bytes_hash
from simclr_mm.files.storage import fetch

_ATTEMPTS = 5  # another process may remove a shard before it is opened


class FetchError(UserError, OSError):
    """A file on the web cannot be fetched."""


class ShardCache:
    """Whole shards, fetched once for all processes of this machine.

    The folder is ``shards`` below ``SIMCLR_MM_HOME``, or below PyTorch's cache without it.

    Args:
        limit_gib: Room for all shards, in GiB. The least recently used shards are removed
            first. Briefly there is one shard more.
        version: Tells one content of a URL from an earlier one.
    """

    def __init__(self, limit_gib: float, version: str = '') -> None:
        self.limit = int(limit_gib * 2**30)  # bytes
        self.version = version
        self.folder = cache_home() / 'shards'

    def path(self, url: str) -> Path:
        """The path of a URL's file in the cache."""
        place, query = url.partition('?')[::2]
        place, _, name = place.rpartition('/')
        if name in ('', '.', '..'):
            raise UserError(f'{url} does not end in the name of a file: give the URL of one.')
        # Quoted characters stay quoted, so that %2F cannot lead into another folder.
        origin = bytes_hash([f'{place} {query} {self.version}'.encode()])
        return self.folder / origin[:16] / name

    def open(self, url: str, size: int | None = None) -> BinaryIO:
        """Open a shard, and fetch it first if it is missing.

        Args:
            url: http, https, or any scheme that fsspec knows.
            size: Its bytes, if known. A file of another size is fetched again.
        """
        for _ in range(_ATTEMPTS):
            path = self.fetch(url, size)
            try:
                file = open(path, 'rb')
            except FileNotFoundError:
                continue
            with contextlib.suppress(OSError):  # of another user, or on a read-only disk
                os.utime(file.fileno())  # marks its use; the path may be gone already
            return file
        raise FetchError(
            f'{path} vanished {_ATTEMPTS} times: the cache of {self.limit / 2**30:g} GiB is too '
            'small for what the processes of this machine read at a time. Raise cache_gib.'
        )

    def fetch(self, url: str, size: int | None = None, anew: bool = False) -> Path:
        """The path of a complete file. ``anew`` fetches it again."""
        path = self.path(url)
        if not anew and self._is_whole(path, size):
            return path
        cache_folder('shards', path.parent.name)
        with FileLock(f'{path}.lock'):
            if anew or not self._is_whole(path, size):
                try:
                    self._fetch(url, path, size)
                except (OSError, HTTPException, ValueError) as error:
                    reason = getattr(error, 'reason', None) or error
                    advice = '' if anew else f', or put a copy at {path}'
                    raise FetchError(
                        f'cannot fetch {url} ({reason}): look whether it is there{advice}.'
                    ) from error
                self._make_room(path)
        return path

    @staticmethod
    def _is_whole(path: Path, size: int | None) -> bool:
        try:
            return path.stat().st_size == size or size is None
        except FileNotFoundError:
            return False

    @staticmethod
    def _fetch(url: str, path: Path, size: int | None) -> None:
        with atomic_file(path) as file:
            fetch(url, file, path.name, quiet=True)
            if size is not None and file.tell() != size:
                raise OSError(f'{file.tell()} bytes came, its index says {size}')

    def _make_room(self, newest: Path) -> None:
        """Remove the least recently used shards. Their readers keep them open."""
        with FileLock(self.folder / 'room.lock'):
            shards = [(path.stat(), path) for path in self.folder.glob('*/*.tar')]
            room = self.limit
            for stat, path in sorted(shards, key=lambda s: s[0].st_mtime, reverse=True):
                room -= stat.st_size
                if room < 0 and path != newest:
                    path.unlink()
