"""One shard of a pack as a file: tar, Parquet or a part of an LMDB database."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from simclr_mm.datasets.lmdb_images import LIST
from simclr_mm.datasets.pack_index import TAR_INDEX
from simclr_mm.datasets.stored_images import optional_package
from simclr_mm.datasets.tar_index import index_tars
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file

_KEY_BYTES = 511  # LMDB's longest key
_GROUP_IMAGES = 100  # of a Parquet row group: some MB, which streams read at a time
_PRINTABLE = ''.join(map(chr, range(0x20, 0x7F))).replace('%', '')


@dataclass
class PackedImage:
    """One image on its way into a shard.

    Attributes:
        row: Its place in the sorted list of files.
        path: Its file, relative to the folder.
        label: Number of its class, or None.
        content: The encoded image.
        extension: Of its format, without a dot.
    """

    row: int
    path: str
    label: int | None
    content: bytes
    extension: str


def lmdb_key(path: str) -> str:
    """The key of a relative path: the path, its non-ASCII characters as %XX."""
    return quote(os.fsencode(path), safe=_PRINTABLE)


class TarWriter:
    """``shard-00000.tar`` in WebDataset's layout, and the places of all images.

    Args:
        out: Folder of the pack.
        classes: Names of the classes, or None.
    """

    suffix = '.tar'
    shuffled = True  # images that are read together should not be of one class

    def __init__(self, out: Path, classes: list[str] | None) -> None:
        self.out = out
        self.classes = classes
        self.webdataset = optional_package('webdataset', 'webdataset', '--format tar')

    def write(self, path: Path, images: Iterable[PackedImage]) -> None:
        """Write one shard; it takes its name when it is whole."""
        with atomic_file(path) as file:
            # The time is fixed: the same images give the same file.
            with self.webdataset.TarWriter(file, encoder=False, mtime=0) as tar:
                for image in images:
                    tar.write(self._sample(image))

    def _sample(self, image: PackedImage) -> dict:
        about = dict(path=image.path)
        sample = {'__key__': f'{image.row:09d}', image.extension: image.content}
        if image.label is not None:
            about['class'] = self.classes[image.label]
            sample['cls'] = str(image.label).encode()
        sample['json'] = json.dumps(about).encode()
        return sample

    def finish(self, paths: list[Path], images: list[tuple]) -> None:
        """Write what is read before the first image."""
        index_tars(paths, len(paths)).sorted_by_name().write(self.out / TAR_INDEX)


class ParquetWriter:
    """``shard-00000.parquet`` with the columns ``image``, ``label`` and ``path``.

    Args:
        out: Folder of the pack.
        classes: Names of the classes, or None.
    """

    suffix = '.parquet'
    shuffled = False

    def __init__(self, out: Path, classes: list[str] | None) -> None:
        self.arrow = optional_package('pyarrow', 'parquet', '--format parquet')
        optional_package('pyarrow.parquet', 'parquet', '--format parquet')
        datasets = optional_package('datasets', 'parquet', '--format parquet')
        features = dict(image=datasets.Image(), path=datasets.Value('string'))
        if classes is not None:
            features['label'] = datasets.ClassLabel(names=classes)
        self.features = datasets.Features(features)

    def write(self, path: Path, images: Iterable[PackedImage]) -> None:
        """Write one shard; it takes its name when it is whole."""
        columns = {name: [] for name in self.features}
        for image in images:
            name = os.fsencode(image.path).decode(errors='replace')  # not all are UTF-8
            columns['image'].append(dict(bytes=image.content, path=name))
            columns['path'].append(name)
            if 'label' in columns:
                columns['label'].append(image.label)
        with atomic_file(path) as file:
            # The schema tells datasets which columns are images and classes.
            schema = self.features.arrow_schema
            table = self.arrow.Table.from_pydict(columns, schema=schema)
            self.arrow.parquet.write_table(table, file, row_group_size=_GROUP_IMAGES)

    def finish(self, paths: list[Path], images: list[tuple]) -> None:
        """Nothing: a Parquet file says what is in it."""


class LMDBWriter:
    """``data.mdb``, one transaction for each shard, and ``list.txt``.

    Args:
        out: Folder of the pack.
        classes: Unused: ``index.json`` has them.
    """

    suffix = ''
    shuffled = False

    def __init__(self, out: Path, classes: list[str] | None) -> None:
        self.out = out
        self.lmdb = optional_package('lmdb', 'lmdb', '--format lmdb')

    def write(self, path: Path, images: Iterable[PackedImage]) -> None:
        """Enter one shard, the whole of it or nothing."""
        entries = [(lmdb_key(image.path).encode(), image.content) for image in images]
        for key, _ in entries:
            if len(key) > _KEY_BYTES:
                raise UserError(
                    f'{key.decode()}: LMDB takes names of {_KEY_BYTES} '
                    'bytes at most: rename it, or use another format.'
                )
        # Pages of 4 KiB, an image in whole pages, as much again for the tree.
        needed = sum(len(content) + 8192 for _, content in entries) * 2 + (1 << 20)
        database = self.out / 'data.mdb'
        size = database.stat().st_size if database.is_file() else 0
        with self.lmdb.open(str(self.out), map_size=size + needed) as environment:
            with environment.begin(write=True) as transaction:
                for key, content in entries:
                    transaction.put(key, content)

    def finish(self, paths: list[Path], images: list[tuple]) -> None:
        """Write the list of keys and labels, in the order of the files."""
        lines = [lmdb_key(path) + ('' if label is None else f' {label}') for path, label in images]
        with atomic_file(self.out / LIST) as file:
            file.write('\n'.join(lines).encode() + b'\n')


WRITERS = dict(tar=TarWriter, parquet=ParquetWriter, lmdb=LMDBWriter)
