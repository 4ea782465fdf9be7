"""What ``tools/pack.py`` writes beside its shards, and how to recognise shards."""

import json
from pathlib import Path

from simclr_mm.errors import UserError
from simclr_mm.files.walk import EXTENSIONS

from .shard_cache import is_url

INDEX = 'index.json'
TAR_INDEX = 'index.npz'  # a TarIndex, beside tar shards
UNREADABLE = 'unreadable.jsonl'  # path and reason of images left out
WORK = '.packing'  # folder of what tools/pack.py needs until INDEX is written
FORMATS = ('tar', 'parquet', 'lmdb')


def read_index(folder: Path) -> dict | None:
    """The ``index.json`` of a pack, None where there is none.

    Returns:
        See :func:`parse_index`.

    Raises:
        ValueError: As there, or packing was stopped before its end.
    """
    path = Path(folder, INDEX)
    if path.is_file():
        return parse_index(path.read_bytes(), str(path))
    if Path(folder, WORK).is_dir():
        raise UserError(
            f'{folder} is half a pack: call tools/pack.py again with the '
            'same arguments, and it goes on.'
        )
    return None


def parse_index(content: bytes, source: str) -> dict:
    """Read ``index.json``.

    Args:
        content: Of the file.
        source: Where it comes from, for messages.

    Returns:
        ``format``, one of FORMATS; ``images``; ``classes``, names in the order of the
        labels, or None; ``shards``, a list of ``name``, ``images`` and ``bytes``;
        ``settings`` of tools/pack.py and ``unreadable``, how many images were left out.

    Raises:
        ValueError: It is of a version that this code does not know, or is none.
    """
    try:
        index = json.loads(content)
    except ValueError:  # a server may answer with a page of HTML
        index = None
    if not isinstance(index, dict) or index.get('pack_version') != 1:
        raise UserError(
            f'{source} is no index of tools/pack.py that this version of '
            'simclr_mm knows: pack anew, or update simclr_mm.'
        )
    return index


def require_whole(folder: Path, index: dict) -> None:
    """Raise if a shard is missing or has another size than its index says.

    Raises:
        ValueError: The message names the shard.
    """
    for shard in index['shards']:
        path = Path(folder, shard['name'])
        size = path.stat().st_size if path.is_file() else None
        if size != shard['bytes']:
            problem = 'is missing' if size is None else f'has {size} bytes'
            raise UserError(
                f'{path} {problem}, {INDEX} says {shard["bytes"]}: copy it'
                ' again, or pack anew with --restart.'
            )


def shard_dataset(location: str) -> dict | None:
    """The config of a dataset for what lies at a place, None for a plain folder.

    Args:
        location: A folder, a URL below which ``index.json`` lies, the URL of a Parquet
            file, or ``hf://NAME`` on the hub. Shards in a folder without an index are
            recognised where nothing else lies beside them.
    """
    if is_url(location):
        tables = location.startswith('hf://') or location.endswith('.parquet')
        kind = 'HuggingFaceImages' if tables else 'TarShards'
        return dict(type=f'simclr_mm.{kind}', data_root=location)
    types = dict(
        tar='simclr_mm.TarShards',
        parquet='simclr_mm.HuggingFaceImages',
        lmdb='simclr_mm.LMDBImages',
    )
    index = read_index(Path(location))
    kind = index['format'] if index else _kind_of_files(Path(location))
    return dict(type=types[kind], data_root=location) if kind else None


def class_names(location: str) -> list[str] | None:
    """The classes of a pack by ``tools/pack.py``, None if they are not known."""
    index = read_index(Path(location))
    return index and index['classes']


def _kind_of_files(folder: Path) -> str | None:
    if (folder / 'dataset_dict.json').is_file():
        return 'parquet'
    paths = list(folder.iterdir()) if folder.is_dir() else []
    endings = {path.suffix.lower() for path in paths}
    # An archive may lie beside the images that came out of it.
    if any(path.is_dir() for path in paths) or endings & set(EXTENSIONS):
        return None
    if '.tar' in endings:
        return 'tar'
    return 'parquet' if endings & {'.parquet', '.arrow'} else None
