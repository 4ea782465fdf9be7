"""Images in one LMDB database, through MMEngine's backend."""

import functools
import os
from pathlib import Path

import numpy as np
from mmengine.fileio import LmdbBackend

from simclr_mm.errors import MissingFileError
from simclr_mm.registry import DATASETS

from .pack_index import read_index
from .stored_images import StoredImages, optional_package

LIST = 'list.txt'


@DATASETS.register_module()
class LMDBImages(StoredImages):
    """A database of encoded images and ``list.txt``, as ``tools/pack.py`` writes them.

    A line of the list is a key, followed by a space and a label if there are labels.

    Args:
        data_root: Folder of ``data.mdb`` and ``list.txt``.
        **kwargs: As :class:`StoredImages`.

    Raises:
        ImportError: lmdb is not installed.
        FileNotFoundError: One of the two is missing.
    """

    def find(self) -> tuple[np.ndarray | None, list[str] | None, int]:
        optional_package('lmdb', 'lmdb', type(self).__name__)
        folder = Path(self.data_root)
        for name in ('data.mdb', LIST):
            if not (folder / name).is_file():
                raise MissingFileError(
                    f'there is no {(folder / name).absolute()}: give the folder of a '
                    'database by tools/pack.py --format lmdb as data_root.'
                )
        pack = read_index(folder)
        lines = (folder / LIST).read_text().splitlines()
        labels = None
        if pack is not None and pack['labels']:
            pairs = [line.rsplit(' ', 1) for line in lines]
            lines = [key for key, _ in pairs]
            labels = np.array([int(label) for _, label in pairs])
        self.keys = np.array(lines, np.bytes_)
        return labels, pack and pack['classes'], len(lines)

    def name(self, row: int) -> str:
        return f'{self.data_root}/{self.keys[row].decode()}'

    def read(self, row: int) -> bytes:
        database = _backend(os.path.realpath(self.data_root))
        return database.get(self.keys[row].decode())


@functools.cache
def _backend(path: str) -> LmdbBackend:
    """A database, open once in this process: a training set and a gallery share it."""
    return LmdbBackend(path)


# LMDB forbids to take an open database through a fork. Whoever reads next opens it.
os.register_at_fork(before=_backend.cache_clear)
