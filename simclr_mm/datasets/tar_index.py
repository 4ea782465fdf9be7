"""Where each image begins in which tar shard, so that any can be read at any time."""

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from filelock import FileLock
from rich.progress import track

from simclr_mm.errors import UserError
from simclr_mm.files import atomic_file, cache_home
from simclr_mm.files.walk import EXTENSIONS

# webdataset's rule: the key of a sample ends at the first dot of the file's name.
_KEY = re.compile(r'^((?:.*/|)[^.]+)[.]([^/]*)$')


@dataclass
class TarIndex:
    """One row for each image.

    Attributes:
        shard: (N,) int32 place of the shard in a list.
        offset: (N,) int64 first byte of the image in its shard.
        size: (N,) int64 bytes.
        label: (N,) int32, -1 without.
        name: (N,) bytes, name of the member, in UTF-8 or what the tar file has.
    """

    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    label: np.ndarray
    name: np.ndarray

    def write(self, path: Path) -> None:
        """Write the rows to an .npz file."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        with atomic_file(path) as file:
            np.savez_compressed(file, **columns)

    @classmethod
    def read(cls, source: Path) -> 'TarIndex':
        """Read what ``write`` wrote."""
        with np.load(source) as columns:
            return cls(**{field.name: columns[field.name] for field in fields(cls)})

    def sorted_by_name(self) -> 'TarIndex':
        """The same rows in the order of their names."""
        order = np.argsort(self.name, kind='stable')
        return TarIndex(**{field.name: getattr(self, field.name)[order] for field in fields(self)})


def index_tars(paths: Iterable[Path], total: int) -> TarIndex:
    """Read all headers of tar files; the images stay unread.

    Args:
        paths: Plain tar files in WebDataset's layout: files of one sample lie together
            and share their name up to the first dot; ``.cls`` is its label in decimal
            digits.
        total: How many they are.

    Raises:
        ValueError: One of them is compressed, damaged or no tar file.
    """
    rows = []
    for shard, path in enumerate(track(paths, 'indexing shards', total, transient=True)):
        rows += [(shard, *image) for image in _images_of(Path(path))]
    shard, offset, size, label, name = zip(*rows) if rows else ((),) * 5
    return TarIndex(
        np.array(shard, np.int32),
        np.array(offset, np.int64),
        np.array(size, np.int64),
        np.array(label, np.int32),
        np.array(name, np.bytes_),
    )


def remembered_index(states: Sequence[str], paths: Iterable[Path]) -> TarIndex:
    """The index of foreign tar files, made once on each machine.

    It is kept in ``SIMCLR_MM_HOME``, or PyTorch's cache without it.

    Args:
        states: What changes when a file does, one for each file.
        paths: The files. Looked at only if the index has to be made.
    """
    digest = hashlib.sha256('\n'.join(states).encode()).hexdigest()[:16]
    target = cache_home() / 'shards' / f'index-{digest}.npz'
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{target}.lock'):  # one of this machine's ranks reads the headers
        if not target.is_file():
            index_tars(paths, len(states)).write(target)
    return TarIndex.read(target)


def _images_of(path: Path) -> list[tuple[int, int, int, bytes]]:
    """(offset, size, label, name) of the images in one tar file."""
    try:
        with tarfile.open(path, 'r:') as tar:
            images = list(filter(None, map(_image_of, _samples(tar))))
            _require_end(tar)
            return images
    except tarfile.TarError as error:
        raise UserError(
            f'{path}: {error}: not a whole, uncompressed tar file. Images are read at '
            'their places, so unpack a compressed one (gunzip), and fetch a damaged '
            'one again.'
        ) from error


def _require_end(tar: tarfile.TarFile) -> None:
    """Raise if a tar file stops without its mark, where tarfile stops in silence."""
    last = tar.getmembers()[-1:]
    end = last[0].offset_data + -(-last[0].size // 512) * 512 if last else 0
    tar.fileobj.seek(end)
    if tar.fileobj.read(512) != bytes(512):
        raise tarfile.ReadError('it is cut short')


def _samples(tar: tarfile.TarFile) -> Iterator[dict]:
    """Neighbouring members of one key: extension to (member, label)."""
    last, sample = None, {}
    for member in tar:
        match = _KEY.match(member.name)
        if not member.isreg() or match is None:
            continue
        key, extension = match.group(1), match.group(2).lower()
        if key != last:
            yield sample
            last, sample = key, {}
        label = _label(tar, member) if extension == 'cls' else -1
        sample[extension] = (member, label)
    yield sample


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    text = tar.extractfile(member).read()
    if not text.strip().isdigit():
        raise UserError(
            f'{tar.name}: {member.name} holds {text[:20]!r}, which is no '
            'label: write the number of a class, from 0.'
        )
    return int(text)


def _image_of(sample: dict):
    label = sample['cls'][1] if 'cls' in sample else -1
    for extension, (member, _) in sample.items():
        if f'.{extension}' in EXTENSIONS:
            name = member.name.encode(errors='surrogateescape')  # as it is in the tar
            return member.offset_data, member.size, label, name
    return None
