"""Write one shard of a pack: tar, Parquet or a part of an LMDB database."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from simclr_mm.datasets.lmdb_images import LIST
from simclr_mm.datasets.pack_index import TAR_INDEX
from simclr_mm.datasets.tar_index import index_tars, write_rows
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.installed import optional_package

_KEY_BYTES = 511  # LMDB's longest key
_GROUP_IMAGES = 100  # of a Parquet row group: some MB, the unit of reading
_PRINTABLE = ''.join(map(chr, range(0x20, 0x7F))).replace('%', '')


@dataclass
class PackedImage:
    """One image on its way into a shard."""

    row: int  # in the sorted list of files
    path: str  # of its file, from the folder
    label: int | None  # number of its class
    content: bytes  # encoded
    extension: str  # of its format, without a dot


def lmdb_key(path: str) -> str:
    """The key of a relative path: the path with non-ASCII characters as %XX."""
    return quote(os.fsencode(path), safe=_PRINTABLE)


class Writer:
    """Writes the shards of one format into a folder. ``classes`` are class names or None."""

    suffix = ''  # of a shard's file; '' if all shards are one file
    shuffled = False  # whether images are dealt to the shards at random

    def __init__(self, out: Path, classes: list[str] | None) -> None:
        self.out = out
        self.classes = classes

    def write(self, path: Path, images: Iterable[PackedImage]) -> None:
        """Write one shard, completely or not at all."""
        raise NotImplementedError

    def finish(self, shards: list[Path], images: list[tuple[str, int | None]]) -> None:
        """Write the files beside the shards, from path and label of each image."""


class TarWriter(Writer):
    """``shard-00000.tar`` in WebDataset's layout, and an index of all images."""

    suffix = '.tar'
    shuffled = True  # images read together should not have one class

    def __init__(self, out: Path, classes: list[str] | None) -> None:
        super().__init__(out, classes)
        self.webdataset = optional_package('webdataset', 'webdataset', '--format tar')

    def write(self, path: Path, images: Iterable[PackedImage]) -> None:
        # A fixed time, so that the same images give the same file.
        how = dict(encoder=False, mtime=0)
        with atomic_file(path) as file, self.webdataset.TarWriter(file, **how) as tar:
            for image in images:
                about = dict(path=image.path)
                sample = {'__key__': f'{image.row:09d}', image.extension: image.content}
                if image.label is not None and self.classes is not None:
                    about['class'] = self.classes[image.label]
                    sample['cls'] = str(image.label).encode()
                sample['json'] = json.dumps(about).encode()
                tar.write(sample)

    def finish(self, shards: list[Path], images: list[tuple[str, int | None]]) -> None:
        rows = index_tars(shards, len(shards))
        order = np.argsort(rows['name'], kind='stable')  # the order of the folder
        write_rows(self.out / TAR_INDEX, rows[order])


class ParquetWriter(Writer):
    """``shard-00000.parquet`` with the columns ``image``, ``label`` and ``path``."""

    suffix = '.parquet'

    def __init__(self, out: Path, classes: list[str] | None) -> None:
        super().__init__(out, classes)
        self.arrow = optional_package('pyarrow', 'parquet', '--format parquet')
        optional_package('pyarrow.parquet', 'parquet', '--format parquet')
        datasets = optional_package('datasets', 'parquet', '--format parquet')
        features = dict(image=datasets.Image(), path=datasets.Value('string'))
        if classes is not None:
            features['label'] = datasets.ClassLabel(names=classes)
        # The schema tells datasets which columns are images and classes.
        self.schema = datasets.Features(features).arrow_schema

    def write(self, path: Path, images: Iterable[PackedImage]) -> None:
        columns: dict[str, list[Any]] = {name: [] for name in self.schema.names}
        for image in images:
            name = os.fsencode(image.path).decode(errors='replace')  # not all are UTF-8
            columns['image'].append(dict(bytes=image.content, path=name))
            columns['path'].append(name)
            if self.classes is not None:
                columns['label'].append(image.label)
        with atomic_file(path) as file:
            table = self.arrow.Table.from_pydict(columns, schema=self.schema)
            self.arrow.parquet.write_table(table, file, row_group_size=_GROUP_IMAGES)


class LMDBWriter(Writer):
    """``data.mdb``, one transaction for each shard, and ``list.txt``."""

    def __init__(self, out: Path, classes: list[str] | None) -> None:
        super().__init__(out, classes)
        self.lmdb = optional_package('lmdb', 'lmdb', '--format lmdb')

    def write(self, path: Path, images: Iterable[PackedImage]) -> None:
        entries = [(lmdb_key(image.path).encode(), image.content) for image in images]
        longest = max((key for key, _ in entries), key=len, default=b'')
        if len(longest) > _KEY_BYTES:
            raise UserError(
                f'{longest.decode()}: LMDB takes names of {_KEY_BYTES} '
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

    def finish(self, shards: list[Path], images: list[tuple[str, int | None]]) -> None:
        lines = [lmdb_key(path) + ('' if label is None else f' {label}') for path, label in images]
        with atomic_file(self.out / LIST) as file:
            file.write('\n'.join(lines).encode() + b'\n')


WRITERS: dict[str, type[Writer]] = dict(tar=TarWriter, parquet=ParquetWriter, lmdb=LMDBWriter)
