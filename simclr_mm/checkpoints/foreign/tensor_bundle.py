"""Read TensorFlow's checkpoints without TensorFlow.

``NAME.index`` is a sorted leveldb table that maps a variable's name to a record (type,
shape, offset, checksum). ``NAME.data-?????-of-?????`` hold the values. Source:
tensorflow/core/util/tensor_bundle and tensorflow/core/lib/io/format.cc. No byte of a file
is read for two variables, so the files' size bounds the memory.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simclr_mm.errors import CheckpointError, UserError, listed

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, 'little')  # ends every table
_FOOTER = 48  # bytes: two handles, padded, and the magic number
_LONGEST_NAME = 1000  # bytes; an entry may repeat the previous name
OBJECT_GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'
# DataType of tensorflow/core/framework/types.proto; bfloat16 (14) is widened.
_DTYPES = {1: '<f4', 2: '<f8', 3: '<i4', 9: '<i8', 10: '?', 14: '<u2', 19: '<f2'}
_STRING, _BFLOAT16 = 7, 14


def bundle_prefix(path: str | Path) -> str:
    """The NAME of a checkpoint. '' if there is none.

    Args:
        path: NAME, NAME.index, one of its data files, or a folder that holds one
            checkpoint, directly or in ``variables/`` (a SavedModel).

    Raises:
        CheckpointError: The folder holds several checkpoints.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = sorted({*path.glob('*.index'), *path.glob('variables/*.index')})
        if len(found) > 1:
            raise CheckpointError(
                f'{path} holds {len(found)} TensorFlow checkpoints: name one of '
                f'{listed(entry.with_suffix("") for entry in found)}'
            )
        return str(found[0])[: -len('.index')] if found else ''
    name = str(path)
    for part in ('.index', '.data-'):
        if part in path.name:
            name = str(path.with_name(path.name.rsplit(part, 1)[0]))
    return name if Path(f'{name}.index').is_file() else ''


def read_bundle(prefix: str) -> dict[str, Any]:
    """Read a checkpoint's variables, each checked against its checksum, as arrays by name.

    TensorFlow 2 names a variable by one of its paths in a graph of objects. The entry
    ``OBJECT_GRAPH`` is that graph, for :func:`object_graph`.

    Raises:
        CheckpointError: A file is missing, damaged, compressed or of another kind.
    """
    try:
        entries = dict(_table(Path(f'{prefix}.index').read_bytes()))
        shards = _fields(entries.pop(b'')).get(1, [1])[0]
        read: Counter[str] = Counter()  # bytes of each data file
        return {
            key.decode(): _value(prefix, shards, _fields(record), read)
            for key, record in entries.items()
        }
    except Exception as error:  # a damaged file can raise anything
        raise CheckpointError(
            f'{prefix} is no complete TensorFlow checkpoint ({error})'
            ': copy its .index and .data files again'
        ) from error


def object_graph(graph: bytes) -> list[tuple[dict[str, int], dict[str, str]]]:
    """The objects of a TensorFlow 2 program. The first one is the root.

    Returns:
        For each object its attributes that are objects, as indices of this list, and the
        names of its values in the file.
    """
    from tensorboard.compat.proto.trackable_object_graph_pb2 import TrackableObjectGraph

    return [
        (
            {child.local_name: child.node_id for child in node.children},
            {value.name: value.checkpoint_key for value in node.attributes},
        )
        for node in TrackableObjectGraph.FromString(graph).nodes
    ]


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if data[-8:] != _MAGIC:
        raise UserError('the .index file does not end as a table does')
    footer = data[-_FOOTER:]
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    end = 0
    for _, handle in _block(data, footer[at:]):
        start = _varint(handle, 0)[0]
        if start < end:
            raise UserError('the .index file names a block twice')
        end = start + _varint(handle, _varint(handle, 0)[1])[0]
        yield from _block(data, handle)


def _block(data: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block. A key may share the start of the previous one."""
    start, at = _varint(handle, 0)
    size = _varint(handle, at)[0]
    block = data[start : start + size]
    if data[start + size] != 0:
        raise UserError('the .index file is compressed, which TensorFlow never does')
    if not _is_intact(data[start : start + size + 1], data[start + size + 1 :]):
        raise UserError('the .index file is damaged')
    end = size - 4 * (int.from_bytes(block[-4:], 'little') + 1)
    at, key = 0, b''
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        if len(key) > _LONGEST_NAME:
            raise UserError(f'the .index file has a name of {len(key)} bytes')
        yield key, block[at + own : at + own + length]
        at += own + length


def _value(prefix: str, shards: int, record: dict[int, list[Any]], read: Counter[str]) -> Any:
    """The array of a record, or the bytes of a scalar string."""
    dtype, size = record[1][0], record.get(5, [0])[0]
    shape = [_fields(dim).get(1, [0])[0] for dim in _fields(record.get(2, [b''])[0]).get(2, [])]
    shard, offset = record.get(3, [0])[0], record.get(4, [0])[0]
    with open(f'{prefix}.data-{shard:05d}-of-{shards:05d}', 'rb') as file:
        held = file.seek(0, 2)
        read[file.name] += size
        if held < offset + size or held < read[file.name]:
            raise UserError(f'{file.name} is too short')
        file.seek(offset)
        data = file.read(size)
    if dtype == _STRING:  # its length, a checksum of the length, the bytes
        return data[_varint(data, 0)[1] + 4 :]
    if dtype not in _DTYPES or 7 in record:
        raise UserError(f'a variable of type {dtype}, or in slices, is not known')
    if not _is_intact(data, record[6][0]):
        raise UserError('a variable is damaged: its checksum differs')
    array = np.frombuffer(data, _DTYPES[dtype]).reshape(shape)
    if dtype == _BFLOAT16:
        return (array.astype('<u4') << 16).view('<f4')
    return array.copy()


def _is_intact(data: bytes, checksum: bytes) -> bool:
    """Compare bytes with their checksum, a masked CRC-32C."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    return masked_crc32c(data) == int.from_bytes(checksum[:4], 'little')


def _fields(message: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol-buffer message: numbers, and undecoded bytes."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: Any
        if tag & 7 == 0:
            value, at = _varint(message, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}.get(tag & 7) or _varint(message, at)
            value, at = message[at : at + size], at + size
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, low bits first, and the index after it."""
    number = 0
    for place in range(10):
        byte = data[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise UserError('a number in it does not end')
