"""Images in one LMDB database, read with MMEngine's backend."""

import functools
import importlib
import os
from pathlib import Path

import numpy as np
from mmengine.fileio import LmdbBackend

from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.files.installed import optional_package
from simclr_mm.registry import DATASETS
from simclr_mm.transforms.to_rgb import unreadable

from .pack_index import read_index
from .stored_images import StoredImages

LIST = 'list.txt'


@DATASETS.register_module()
class LMDBImages(StoredImages):
    """A database of encoded images with a ``list.txt``, written by ``simclr-mm pack``.

    A line of the list is a key. If there are labels, a space and the label follow.

    Args:
        data_root: Folder of ``data.mdb`` and ``list.txt``.
        **kwargs: As for :class:`StoredImages`.

    Raises:
        MissingPackageError: lmdb is not installed.
        MissingFileError: One of the two files is missing.
        UserError: One of the two files is truncated.
    """

    def find(self) -> tuple[np.ndarray | None, list[str] | None, int]:
        optional_package('lmdb', 'lmdb', type(self).__name__)
        folder = Path(self.data_root)
        for name in ('data.mdb', LIST):
            if not (folder / name).is_file():
                raise MissingFileError(
                    f'there is no {(folder / name).absolute()}: give the folder of a '
                    'database by simclr-mm pack --format lmdb as data_root.'
                )
        _backend(os.path.realpath(folder))
        pack = read_index(folder)
        text = (folder / LIST).read_text('ascii', errors='replace')
        lines = text.splitlines()
        if pack is not None and (len(lines) != pack['images'] or not text.endswith('\n')):
            raise UserError(
                f'{folder / LIST} has {len(lines)} whole lines, index.json says '
                f'{pack["images"]} images: copy it again, or pack again with --restart.'
            )
        labels = None
        if pack is not None and pack['labels']:
            labels = np.array([int(line.rpartition(' ')[2]) for line in lines])
            lines = [line.rpartition(' ')[0] for line in lines]
        self.keys = np.array(lines, np.bytes_)
        return labels, pack['classes'] if pack else None, len(lines)

    def name(self, row: int) -> str:
        return f'{self.data_root}/{self.keys[row].decode()}'

    def read(self, row: int) -> bytes:
        content = _backend(os.path.realpath(self.data_root)).get(self.keys[row].decode())
        if content is None:
            raise unreadable(self.name(row), 'the database has no such key.')
        return content


@functools.cache
def _backend(path: str) -> LmdbBackend:
    """A database, opened once in each process and shared by its datasets.

    A truncated file is refused, because reading past the end of a memory-mapped file kills
    the process.
    """
    lmdb = importlib.import_module('lmdb')
    size = os.path.getsize(os.path.join(path, 'data.mdb'))
    try:
        with lmdb.open(path, readonly=True, lock=False) as database:
            needed = (database.info()['last_pgno'] + 1) * database.stat()['psize']
    except lmdb.Error as error:
        raise UserError(f'{path}/data.mdb: {error}: copy it again, or pack again.') from error
    if size < needed:
        raise UserError(
            f'{path}/data.mdb has {size} bytes of {needed}: copy it, or pack with --restart.'
        )
    return LmdbBackend(path)


# LMDB forbids an open database across a fork. The next read opens it again.
os.register_at_fork(before=_backend.cache_clear)
