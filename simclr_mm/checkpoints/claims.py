"""What a checkpoint file claims, checked against its bytes before PyTorch believes it.

A zip may say that an entry of 1 kB unpacks to 1 TB, and a pickle that a storage of 40
bytes holds a million numbers, which older PyTorch then reads from other memory. Nothing
is built here: the opcodes of the pickle are followed, not carried out.
"""

import os
import pickletools
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from simclr_mm.errors import UserError

_ZIP = b'PK\3\4'
# Tuples in one another: hash() of very deep ones overflows the C stack, and never ends
# for those that hold the same one twice on every level.
_DEEPEST = 100
_LARGEST = 10**6  # elements, those of inner tuples included
_LEGACY_PICKLES = 5  # magic number, version, system, content, keys of the storages
# Bytes of an element. PyTorch has no further typed storages; newer types are untyped.
_ITEM_SIZE = dict(
    ComplexDoubleStorage=16,
    DoubleStorage=8,
    LongStorage=8,
    ComplexFloatStorage=8,
    FloatStorage=4,
    IntStorage=4,
    QInt32Storage=4,
    HalfStorage=2,
    BFloat16Storage=2,
    ShortStorage=2,
)
_UPDATES = ('APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'ADDITEMS', 'BUILD')


def check_claims(file: BinaryIO) -> None:
    """Compare what a file says about itself with what it holds.

    Args:
        file: Open at the start of the checkpoint; left there.

    Raises:
        ValueError: entries that unpack or overlap, storages that are shorter than
            claimed, nesting that would overflow the stack, an unreadable pickle.
    """
    start = file.tell()
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    is_zip = file.read(4) == _ZIP
    file.seek(start)
    try:
        if is_zip:
            _check_zip(file, size)
        else:
            _check_legacy(file, size)
    finally:
        file.seek(start)


def _check_zip(file: BinaryIO, size: int) -> None:
    try:
        with ZipFile(file) as archive:
            entries = archive.infolist()
    except BadZipFile as error:
        raise UserError('the end of its zip archive is missing') from error
    packed = [
        entry.filename
        for entry in entries
        if entry.compress_type != ZIP_STORED or entry.file_size != entry.compress_size
    ]
    if packed:
        raise UserError(
            f'its entry {packed[0]} is compressed, which PyTorch never '
            'does and which could unpack to any size'
        )
    if sum(entry.file_size for entry in entries) > size:
        raise UserError('its zip entries overlap')
    if len({entry.filename.lower() for entry in entries}) < len(entries):
        raise UserError('its zip archive has two entries of one name')
    sizes = {entry.filename.partition('/')[2]: entry.file_size for entry in entries}
    for entry in entries:
        if entry.filename.partition('/')[2] == 'data.pkl':
            for key, claimed in _storages(BytesIO(_stored(file, entry))):
                if claimed > sizes.get(f'data/{key}', 0):
                    raise UserError(
                        f'storage {key} claims {claimed} bytes and has '
                        f'{sizes.get(f"data/{key}", 0)}'
                    )


def _stored(file: BinaryIO, entry: ZipInfo) -> bytes:
    """The bytes of an entry; PyTorch may write a wrong CRC, which zipfile refuses."""
    file.seek(entry.header_offset + 26)
    name, extra = struct.unpack('<HH', file.read(4))
    file.seek(name + extra, os.SEEK_CUR)
    return file.read(entry.file_size)


def _check_legacy(file: BinaryIO, size: int) -> None:
    """PyTorch's format before 1.6: pickles, then the storages one after the other."""
    end = file.tell() + size
    storages: dict[str, int] = {}
    for _ in range(_LEGACY_PICKLES):
        if file.tell() < end:
            storages.update(_storages(file))
    claimed = sum(storages.values())
    if claimed > size:
        raise UserError(f'its storages claim {claimed} bytes, the file has {size}')


class _Value(NamedTuple):
    """What is known of an object on the stack of a pickle."""

    value: Any = None  # numbers, strings, tuples of them and names of globals
    depth: int = 0
    size: int = 1


def _storages(pickled: BinaryIO) -> Iterator[tuple[str, int]]:
    """Key and claimed bytes of every storage that a pickle refers to.

    Raises:
        ValueError: the pickle is broken or nested too deeply, asks for a bytearray
            (which takes a length and fills it), or hides what it claims.
    """
    stack: list[_Value] = []
    marks: list[int] = []
    memo: dict[int, _Value] = {}
    try:
        for opcode, arg, _ in pickletools.genops(pickled):
            if opcode.name == 'MARK':
                marks.append(len(stack))
            elif opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'):
                memo[len(memo) if arg is None else arg] = stack[-1]
            elif opcode.name in ('GET', 'BINGET', 'LONG_BINGET'):
                stack.append(memo[arg])
            elif opcode.name == 'DUP':
                stack.append(stack[-1])
            else:
                taken = _take(stack, marks, opcode)
                if opcode.name in ('BINPERSID', 'PERSID'):
                    yield _claim(taken[0].value if taken else arg)
                if opcode.stack_after:
                    stack.append(_result(opcode, arg, taken))
    except (IndexError, KeyError) as error:
        raise UserError('its pickle is broken') from error


def _take(stack: list[_Value], marks: list[int], opcode: pickletools.OpcodeInfo) -> list[_Value]:
    """Remove from the stack what an opcode consumes."""
    before = opcode.stack_before
    if pickletools.markobject in before:
        below = marks.pop() - before.index(pickletools.markobject)
    else:
        below = len(stack) - len(before)
    if below < 0:
        raise IndexError('the stack is empty')
    taken = stack[below:]
    del stack[below:]
    return taken


def _result(opcode: pickletools.OpcodeInfo, arg: Any, taken: list[_Value]) -> _Value:
    if opcode.name == 'GLOBAL' and arg.endswith(' bytearray'):
        raise UserError('it asks for builtins.bytearray, which could take any size')
    if not taken:
        return _Value(arg)
    depth = 1 + max(item.depth for item in taken)
    if opcode.name in _UPDATES:
        inner = 1 + max((item.depth for item in taken[1:]), default=0)
        result = _Value(None, max(taken[0].depth, inner))
    elif opcode.name.startswith('TUPLE'):
        values = tuple([item.value for item in taken])
        result = _Value(values, depth, 1 + sum(item.size for item in taken))
    else:
        result = _Value(None, depth)
    if result.depth > _DEEPEST or result.size > _LARGEST:
        raise UserError(f'it is nested {result.depth} levels deep')
    return result


def _claim(reference: Any) -> tuple[str, int]:
    """Key and bytes out of ('storage', type, key, location, number of elements)."""
    try:
        _, kind, key, _, elements = reference[:5]
        return str(key), _ITEM_SIZE.get(kind.split(' ')[1], 1) * int(elements)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError('it refers to a storage in an unknown way') from error
