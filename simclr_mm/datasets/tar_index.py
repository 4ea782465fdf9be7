"""The positions of images in tar shards, for random access."""

import re
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock
from mmengine.logging import print_log
from numpy.typing import ArrayLike
from rich.progress import track

from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.cache import cache_folder, cache_home
from simclr_mm.files.hashes import bytes_hash
from simclr_mm.files.storage import is_url
from simclr_mm.files.walk import EXTENSIONS

# webdataset's rule: the key of a sample ends at the first dot of the file's name.
_KEY = re.compile(r'((?:.*/|)[^.]+)([.][^/]*)', re.DOTALL)
_NAME_BYTES = 1024  # of a member's name, for messages; all take the space of the longest
_COLUMNS: dict[str, type] = dict(
    shard=np.int32, offset=np.int64, size=np.int64, label=np.int32, name=np.bytes_
)
_Member = tuple[tarfile.TarInfo, str, str]  # with its key, and its ending in lower case
# What NumPy raises for a damaged .npz file.
_DAMAGED = (AttributeError, EOFError, KeyError, TypeError, ValueError, BadZipFile, zlib.error)


def read_rows(source: Path) -> np.ndarray:
    """Rows of :func:`index_tars` from an .npz file. A damaged file is a UserError."""
    try:
        with np.load(source) as columns:
            return _rows([columns[name] for name in _COLUMNS])
    except _DAMAGED as error:
        raise UserError(
            f'{source} is no list of images, or a damaged one ({error}): remove it if it '
            'lies in a cache, else fetch it again or pack again.'
        ) from error


def write_rows(path: Path, rows: np.ndarray) -> None:
    """Write rows to an .npz file, one array for each column."""
    with atomic_file(path) as file:
        columns: dict[str, Any] = {name: rows[name] for name in _COLUMNS}
        np.savez_compressed(file, **columns)


def lie_within(rows: np.ndarray, sizes: Sequence[int]) -> bool:
    """Whether each image lies inside its shard, of these sizes in bytes."""
    shard, offset, size = rows['shard'], rows['offset'], rows['size']
    if not ((shard >= 0) & (shard < len(sizes))).all():
        return False
    room = np.array(sizes, np.int64)[shard] - offset
    return bool(((offset >= 0) & (size >= 0) & (size <= room)).all())


def index_tars(paths: Iterable[Path], total: int) -> np.ndarray:
    """Read all headers of tar files, without the images.

    Args:
        paths: Uncompressed tar files in WebDataset's layout: files of one sample are adjacent and
            share their name up to the first dot; ``.cls`` holds the label in decimal digits.
        total: Number of files.

    Returns:
        (N,) rows with ``shard``, its index among the paths; ``offset`` of the first byte in it;
        ``size`` in bytes; ``label``, -1 for none; and ``name``, the bytes of the member's name.

    Raises:
        UserError: A file is compressed, damaged or no tar file.
    """
    images: list[tuple[int, int, int, int, bytes]] = []
    for shard, path in enumerate(track(paths, 'indexing shards', total, transient=True)):
        images += [(shard, *image) for image in _images_of(Path(path))]
    return _rows(list(zip(*images)) or [()] * len(_COLUMNS))


def _rows(columns: Sequence[ArrayLike]) -> np.ndarray:
    typed = zip(columns, _COLUMNS.values())
    arrays: list[np.ndarray] = [np.array(column, dtype) for column, dtype in typed]
    formats = [array.dtype for array in arrays]
    return np.rec.fromarrays(arrays, names=list(_COLUMNS), formats=formats).view(np.ndarray)


def remembered_index(states: Sequence[str], paths: Iterable[Path]) -> np.ndarray:
    """Rows of foreign tar files, kept in a cache of this machine.

    Args:
        states: For each file, a text that changes when the file does.
        paths: The files. Used only if the cache has no rows.
    """
    text = '\n'.join(states).encode(errors='surrogateescape')
    digest = bytes_hash([text])[:16]
    target = cache_home() / 'shards' / f'index-{digest}.npz'
    if target.is_file() and is_url(states[0]):  # nothing tells whether they are still the same
        print_log(
            f'{len(states)} shards as they were when {target.parent} took them from {states[0]}: '
            'delete that folder if the files on the web have changed',
            logger='current',
        )
    if not target.is_file():
        cache_folder('shards')
        with FileLock(f'{target}.lock'):  # one of this machine's ranks reads the headers
            if not target.is_file():
                write_rows(target, index_tars(paths, len(states)))
    return read_rows(target)


def _images_of(path: Path) -> list[tuple[int, int, int, bytes]]:
    """(offset, size, label, name) of the images in one tar file."""
    try:
        with tarfile.open(path, 'r:') as tar:
            members = [
                (member, match[1], match[2].lower())
                for member in tar
                if member.isreg() and (match := _KEY.fullmatch(member.name))
            ]
            _require_end(tar)
            samples = (list(sample) for _, sample in groupby(members, itemgetter(1)))
            return [image for sample in samples for image in _image_of(tar, sample)]
    except tarfile.TarError as error:
        raise UserError(
            f'{path}: {error}: not a complete, uncompressed tar file. Unpack a compressed '
            'file (gunzip); fetch a damaged file again.'
        ) from error


def _require_end(tar: tarfile.TarFile) -> None:
    """Raise if a tar file lacks its end mark. tarfile itself stops silently."""
    last = tar.getmembers()[-1:]
    end = last[0].offset_data + -(-last[0].size // 512) * 512 if last else 0
    assert tar.fileobj is not None  # it is open
    tar.fileobj.seek(end)
    if tar.fileobj.read(512) != bytes(512):
        raise tarfile.ReadError('it is cut short')


def _image_of(tar: tarfile.TarFile, sample: list[_Member]) -> list[tuple[int, int, int, bytes]]:
    """The first image among the members of one sample, with the label beside it."""
    labels = [_label(tar, member) for member, _, ending in sample if ending == '.cls']
    for member, _, ending in sample:
        if ending in EXTENSIONS:
            name = member.name.encode(errors='surrogateescape')  # as it is in the tar
            label = labels[-1] if labels else -1
            return [(member.offset_data, member.size, label, name[:_NAME_BYTES])]
    return []


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    file = tar.extractfile(member)
    text = file.read(20) if file else b''
    if not re.fullmatch(rb'\s*\d{1,9}\s*', text):
        raise UserError(
            f'{tar.name!r}: {member.name} holds {text!r}, which is no '
            'label: write the number of a class, from 0.'
        )
    return int(text)
