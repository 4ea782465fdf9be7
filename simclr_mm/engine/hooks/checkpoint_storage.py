"""MMEngine's storages of files, so that a checkpoint is written whole or not at all."""

import errno
import time
from collections.abc import Callable
from pathlib import Path

from mmengine.fileio import BaseStorageBackend, FileClient, LocalBackend, register_backend
from mmengine.logging import MMLogger

from simclr_mm.files import storage
from simclr_mm.files.atomic import atomic_file

LOCAL = 'simclr_mm_atomic'
# Seconds between attempts, together less than a cluster leaves before it kills.
_WAITS = (1, 5, 15)
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)  # a network disk may come back


@register_backend(LOCAL, force=True)
class AtomicLocalBackend(LocalBackend):
    """MMEngine's storage on local disks, with atomic writes that wait for a full disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        def write() -> None:
            with atomic_file(filepath) as file:
                file.write(obj)

        _patiently(write, filepath)


class StorageBackend(BaseStorageBackend):
    """MMEngine's storage on any URL of fsspec. Failed writes are tried again."""

    def get(self, filepath: str) -> bytes:
        return storage.read(filepath) or b''

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        return self.get(filepath).decode(encoding)

    def put(self, obj: bytes, filepath: str) -> None:
        _patiently(lambda: storage.write(filepath, obj), filepath)

    def join_path(self, filepath: str, *filepaths: str) -> str:
        start = filepath if filepath.endswith('://') else filepath.rstrip('/') + '/'
        return start + '/'.join(filepaths)

    def isfile(self, filepath: str) -> bool:
        return True  # remove() takes a missing one

    def remove(self, filepath: str) -> None:
        try:
            storage.remove(filepath)
        except storage.StorageError as error:
            MMLogger.get_current_instance().warning(f'{error}. The run goes on.')


def _patiently(write: Callable[[], None], place: str | Path) -> None:
    """Write, and try again if what failed may pass."""
    for number, wait in enumerate((*_WAITS, None), start=1):
        try:
            return write()
        except OSError as error:
            if wait is None or not (error.errno in _PASSING or getattr(error, 'may_pass', False)):
                raise
            MMLogger.get_current_instance().warning(
                f'{place} cannot be written, attempt {number} of {len(_WAITS) + 1}: '
                f'{error.strerror or error}. The one before is complete. '
                f'Next attempt in {wait} s.'
            )
            time.sleep(wait)


def serve(url: str) -> None:
    """Let MMEngine reach all URLs of this scheme through fsspec in this process."""
    scheme = url.partition('://')[0]
    register_backend(f'simclr_mm_{scheme}', StorageBackend, force=True, prefixes=scheme)
    FileClient._prefix_to_backends[scheme] = StorageBackend  # its own method does not replace


def check_writable(folder: str) -> None:
    """Find out at the start what else the first checkpoint would, hours later."""
    storage.make_folder(folder)
    backend, probe = StorageBackend(), f'{folder}/.write_test'
    backend.put(b'', probe)
    backend.remove(probe)
