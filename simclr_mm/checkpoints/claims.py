"""Compare a checkpoint file's claims with its bytes, before PyTorch allocates memory.

A zip entry of 1 kB may claim to unpack to 1 TB. A pickle may claim a million numbers for a
storage of 40 bytes, or copy one long list a million times. This module follows the
opcodes of the pickle without executing them, so it builds nothing.
"""

import os
import pickletools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO
from zipfile import ZipFile

from torch._C import PyTorchFileReader  # torch.load reads a zip with it

from simclr_mm.errors import UserError

_END, _LOCATOR, _END64 = b'PK\5\6', b'PK\6\7', b'PK\6\6'  # records in a zip's last 98 bytes
_LEGACY_PICKLES = 5  # magic number, version, system, content, keys of the storages
_OPCODES = 1_000_000  # a training checkpoint has some ten thousand; each costs about 300 bytes
_DEEPEST = 100  # levels of tuples: hash() of deeper ones overflows the C stack
# Calls and dict keys may read or copy so many bytes for each byte of the file, and this
# many more.
_COPIES, _COPIES_FREE = 8, 1_000_000
# Keys of 2**60 and more can be chosen to collide and slow dicts down.
_LARGE_NUMBER, _COST_OF_LARGE = 2**60, 10_000
_LONGEST_NAME = 200  # letters of a module and a class
# Elements of these storages have more than a byte. Newer dtypes have untyped storages.
_BYTES = {
    16: ('ComplexDouble',),
    8: ('ComplexFloat', 'Double', 'Long'),
    4: ('Float', 'Int', 'QInt32'),
    2: ('BFloat16', 'Half', 'Short'),
}
_ITEM_SIZE = {f'{name}Storage': size for size, names in _BYTES.items() for name in names}
# PyTorch lets a pickle call these. They allocate a size that the pickle gives.
_ALLOCATE = (
    'bytearray',
    '_rebuild_qtensor',
    '_rebuild_nested_tensor',
    '_rebuild_wrapper_subclass',
    '_rebuild_device_tensor_from_numpy',
)


def check_claims(file: BinaryIO) -> None:
    """Compare the claims of an open file with its content, and go back to its start.

    Raises:
        UserError: The zip can be read in two ways or its entries have more bytes than the
            file, a storage is shorter than claimed, or the pickle is broken, too long, nested
            too deeply, or makes more than its file could hold.
    """
    is_zip = file.read(4) == b'PK\3\4'
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if is_zip:
        _check_zip(file, size)
    else:
        _check_legacy(file, size)
    file.seek(0)


def _check_zip(file: BinaryIO, size: int) -> None:
    _check_directory(file, size)
    entries = ZipFile(file).infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > size:
        raise UserError(
            f'its zip entries are compressed or overlap: they have {unpacked} bytes, and the '
            f'file {size}; PyTorch writes no such file'
        )
    # PyTorch looks names up below one folder, and without regard to case.
    held = {entry.filename.partition('/')[2].lower(): entry.file_size for entry in entries}
    if len(held) < len(entries):
        raise UserError('its zip archive has two entries of one name')
    file.seek(0)
    pickled = BytesIO(PyTorchFileReader(file).get_record('data.pkl'))
    for key, claimed in _storages(pickled, size):
        has = held.get(f'data/{key}')
        if has is None:  # also in another spelling, because PyTorch reads each spelling again
            raise UserError(f'its zip archive has no storage {key[:100]}')
        if claimed > has:
            raise UserError(f'storage {key[:100]} claims {claimed} bytes and has {has}')


def _check_directory(file: BinaryIO, size: int) -> None:
    """Refuse a zip in which Python and PyTorch would find different directories.

    Each reads the end of a zip in its own way. They agree if the directory, the optional
    64-bit record with its locator, and the end record follow each other.
    """
    file.seek(max(0, size - 98))
    tail = file.read(98).rjust(98, b'\0')
    end, locator, end64 = tail[76:], tail[56:76], tail[:56]
    length, offset, comment = struct.unpack('<12xIIH', end)
    stands_at = size - 22
    agree = end.startswith(_END) and comment == 0
    if locator.startswith(_LOCATOR):
        stands_at = size - 98
        length, offset = struct.unpack('<40xQQ', end64)
        agree &= end64.startswith(_END64) and struct.unpack('<8xQ4x', locator)[0] == stands_at
    if not agree or offset + length != stands_at:
        raise UserError('its zip archive does not end as PyTorch ends one')


def _check_legacy(file: BinaryIO, size: int) -> None:
    """Check PyTorch's format before 1.6: pickles, then the storages one after the other."""
    storages: dict[str, int] = {}
    for _ in range(_LEGACY_PICKLES):
        if file.tell() < size:
            for key, claimed in _storages(file, size):
                storages[key] = max(claimed, storages.get(key, 0))
    claimed = sum(storages.values())
    if claimed > size:
        raise UserError(f'its storages claim {claimed} bytes, the file has {size}')


@dataclass
class _Value:
    """The known facts of an object on the stack of a pickle.

    ``value`` is a number, a text, 'module name' of a global, the _Values of a tuple, or None.
    ``size`` is the approximate bytes of a copy, and ``depth`` the levels of nested tuples.
    """

    value: Any = None
    size: int = 1
    depth: int = 0

    def size_now(self) -> int:
        """Its size. A list in a tuple may have grown since the tuple was made."""
        is_tuple = isinstance(self.value, list)
        return sum(part.size for part in self.value) if is_tuple else self.size


def _storages(pickled: BinaryIO, size: int) -> Iterator[tuple[str, int]]:
    """Follow a pickle to its end. Yields key and claimed bytes of every storage.

    ``size`` is the size of the file in bytes.
    """
    stack: list[_Value] = []
    marks: list[int] = []
    memo: dict[Any, _Value] = {}
    allowed = _COPIES * size + _COPIES_FREE
    try:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(pickled)):
            name = opcode.name
            if name == 'MARK':
                marks.append(len(stack))
            elif name.endswith('PUT') or name == 'MEMOIZE':
                memo[len(memo) if arg is None else arg] = stack[-1]
            elif name.endswith('GET'):
                stack.append(memo[arg])
            elif name == 'DUP':
                stack.append(stack[-1])
            else:
                taken = _take(stack, marks, opcode)
                if name.endswith('PERSID'):
                    yield _claim(taken)
                allowed -= _copied(name, taken)
                if opcode.stack_after:
                    stack.append(_result(name, arg, taken))
            if allowed < 0:
                raise UserError('its pickle would make more than the file could hold')
            if count > _OPCODES:
                raise UserError(f'its pickle has more than {_OPCODES} opcodes')
    except (IndexError, KeyError) as error:
        raise UserError('its pickle is broken') from error


def _take(stack: list[_Value], marks: list[int], opcode: pickletools.OpcodeInfo) -> list[_Value]:
    """Remove the operands of an opcode from the stack."""
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


def _copied(opcode: str, taken: list[_Value]) -> int:
    """Bytes that an opcode reads or copies: arguments of a call, hashed keys of a dict."""
    if opcode in ('REDUCE', 'NEWOBJ'):
        _check_call(*taken)
        return sum(value.size_now() for value in taken[1].value)
    if opcode == 'BUILD':
        return taken[1].size_now()
    if opcode in ('SETITEM', 'SETITEMS'):
        return sum(value.size for value in taken[1::2])
    return 0


def _result(opcode: str, arg: Any, taken: list[_Value]) -> _Value:
    """The object that an opcode leaves on the stack."""
    size = sum(value.size for value in taken)
    if opcode in ('APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'ADDITEMS', 'BUILD'):
        taken[0].size = size
        return taken[0]
    if opcode == 'GLOBAL' and len(arg) > _LONGEST_NAME:
        raise UserError(f'it asks for a name of {len(arg)} characters')
    if 'TUPLE' in opcode:
        depth = 1 + max((value.depth for value in taken), default=0)
        if depth > _DEEPEST:
            raise UserError(f'it is nested more than {_DEEPEST} levels deep')
        return _Value(taken, 1 + size, depth)
    if isinstance(arg, (str, bytes)):
        return _Value(arg, 1 + len(arg))
    large = isinstance(arg, int) and abs(arg) >= _LARGE_NUMBER
    return _Value(arg, _COST_OF_LARGE if large else 1 + size)


def _check_call(function: _Value, args: _Value) -> None:
    """Refuse calls that make large objects from small arguments."""
    if not isinstance(function.value, str):
        if function.size > _LONGEST_NAME:  # PyTorch would print it, with all that is in it
            raise UserError('it calls something that is no function')
        return
    module, _, name = function.value.rpartition(' ')
    made = module.startswith('torch') and name.endswith(('Tensor', 'Storage'))
    if name in _ALLOCATE or made:
        raise UserError(f'it asks for {module}.{name}, which could take any size')
    values = args.value
    if not isinstance(values, list):
        raise UserError(f'it calls {name} without arguments')
    if name == 'encode' and [each.value for each in values[1:]] != ['latin1']:
        raise UserError('it asks for _codecs.encode, which could take any size')
    if name == '_rebuild_from_type_v2' and len(values) > 2:
        _check_call(values[0], values[2])  # calls its first argument


def _claim(taken: list[_Value]) -> tuple[str, int]:
    """Key and bytes from ('storage', type, key, location, number of elements)."""
    try:
        _, kind, key, _, elements = (value.value for value in taken[0].value[:5])
        if not isinstance(key, str) or not isinstance(elements, int) or elements < 0:
            raise TypeError('no key, or no number of elements')
        return key, _ITEM_SIZE.get(kind.split(' ')[1], 1) * elements
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError('it refers to a storage in an unknown way') from error
