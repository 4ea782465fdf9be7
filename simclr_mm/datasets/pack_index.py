"""The index that ``simclr-mm pack`` writes beside its shards, and detection of shards."""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from simclr_mm.errors import UserError
from simclr_mm.files.storage import is_url
from simclr_mm.files.walk import BAND_EXTENSIONS, EXTENSIONS

INDEX = 'index.json'
TAR_INDEX = 'index.npz'  # rows of tar_index.index_tars, beside tar shards
UNREADABLE = 'unreadable.jsonl'  # path and reason of images left out
WORK = '.packing'  # folder of what simclr-mm pack needs until INDEX is written
_KINDS: dict[str, type | tuple[type, ...]] = dict(
    images=int, labels=bool, classes=(list, type(None)), shards=list, settings=dict, unreadable=int
)
_TYPES = dict(
    tar='simclr_mm.TarShards', parquet='simclr_mm.HuggingFaceImages', lmdb='simclr_mm.LMDBImages'
)
FORMATS = tuple(_TYPES)
_ARRAYS = {*BAND_EXTENSIONS} - {*EXTENSIONS}  # images of LoadBands alone
# A shard lies beside its index: no slash, no %2F, no leading dot.
_SHARD_NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]*')


def read_index(folder: Path) -> dict[str, Any] | None:
    """The ``index.json`` of a pack, see :func:`parse_index`. None if there is none.

    Raises:
        UserError: The pack is not finished.
    """
    path = Path(folder, INDEX)
    if path.is_file():
        return parse_index(path.read_bytes(), str(path))
    if Path(folder, WORK).is_dir():
        raise UserError(f'{folder} is an unfinished pack: call simclr-mm pack again to finish it.')
    return None


def parse_index(content: bytes, source: str) -> dict[str, Any]:
    """Read an ``index.json`` that comes from ``source``.

    Returns:
        ``format``, one of FORMATS; ``images``; ``labels``, whether there are labels; ``classes``,
        names in the order of the labels, or None; ``shards``, a list of ``name``, ``images`` and
        ``bytes``; ``settings`` of the pack; and ``unreadable``, the number of images left out.

    Raises:
        UserError: It is no index, has an unknown version, or names a shard elsewhere.
    """
    try:
        index = json.loads(content)
        known = index['pack_version'] == 1 and index['format'] in FORMATS
        known = known and all(isinstance(index[key], kind) for key, kind in _KINDS.items())
        names = [str(shard['name']) for shard in index['shards'] if shard['bytes'] >= 0]
    except (ValueError, TypeError, KeyError, RecursionError):  # a page of HTML, perhaps
        known = False
    if not known:
        raise UserError(
            f'{source} is no index of simclr-mm pack that this version of '
            'simclr_mm knows: pack again, or update simclr_mm.'
        )
    for name in names:
        if not _SHARD_NAME.fullmatch(name):
            raise UserError(
                f'{source} names the shard {name!r}, which is not in its folder. '
                'simclr-mm pack writes no such names: do not use this pack.'
            )
    return index


def require_whole(folder: Path, index: dict[str, Any]) -> None:
    """Raise a UserError if a shard is missing or its size differs from the index."""
    for shard in index['shards']:
        path = Path(folder, shard['name'])
        size = path.stat().st_size if path.is_file() else None
        if size != shard['bytes']:
            problem = 'is missing' if size is None else f'has {size} bytes'
            raise UserError(
                f'{path} {problem}, {INDEX} says {shard["bytes"]}: copy it'
                ' again, or pack again with --restart.'
            )


def shard_dataset(location: str) -> dict[str, Any] | None:
    """Config of the dataset that reads the shards at a place. None for a plain folder.

    Args:
        location: A folder, a URL with an ``index.json`` below it, the URL of a Parquet
            file, or ``hf://NAME`` on the hub. Without an index, shards are recognised if
            the folder has no images and no subfolders.
    """
    if is_url(location):
        file = location.partition('?')[0]  # without a signature
        is_table = location.startswith('hf://') or file.endswith('.parquet')
        kind: str | None = 'parquet' if is_table else 'tar'
    else:
        folder = Path(location)
        index = None if _is_of_images(folder) else read_index(folder)
        kind = index['format'] if index else _kind_of_files(folder)
    return dict(type=_TYPES[kind], data_root=location) if kind else None


def class_names(location: str) -> list[str] | None:
    """The class names of a pack by ``simclr-mm pack``. None if they are unknown."""
    index = read_index(Path(location))
    return index['classes'] if index else None


def _is_of_images(folder: Path) -> bool:
    """Whether a folder is one of images, with an ``index.json`` that is no pack's beside them."""
    index = folder / INDEX
    return index.is_file() and b'"pack_version"' not in index.read_bytes() and _holds_images(folder)


def _holds_images(folder: Path) -> bool:
    """Whether there are images or folders in a folder; a pack has neither."""
    if not folder.is_dir():
        return False
    files = folder.iterdir()
    return any(file.suffix.lower() in EXTENSIONS or os.path.isdir(file) for file in files)


def _kind_of_files(folder: Path) -> str | None:
    if (folder / 'dataset_dict.json').is_file():
        return 'parquet'
    if _holds_images(folder):  # beside which the archive may lie that they are from
        return None
    names = os.listdir(folder) if folder.is_dir() else []
    endings = Counter(Path(name).suffix.lower() for name in names if name != TAR_INDEX)
    arrays = sum(endings[ending] for ending in _ARRAYS)
    if arrays and arrays >= endings['.tar']:  # a table is of their labels, an archive holds them
        return None
    if endings['.tar']:
        return 'tar'
    return 'parquet' if endings['.parquet'] or endings['.arrow'] else None
