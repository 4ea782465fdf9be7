"""What a pickle may name besides PyTorch's own, and what it gets.

Training checkpoints of MMEngine ask for NumPy's arrays, for HistoryBuffer and for
``builtins.getattr``. The real ones would let a file allocate any amount of memory,
damage it (``numpy.dtype.__setstate__`` trusts what it is given) or run code. A file
gets inert stand-ins of the same names; :func:`.content.finished` turns them into the
real thing.
"""

import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer as _HistoryBuffer
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

_STATISTICS = ('min', 'max', 'current', 'mean')
_NUMBERS = re.compile(r'[biufcSU]\d{1,6}')  # numbers, booleans, strings; no objects
_LOCK = threading.Lock()  # PyTorch's allow-list belongs to the process


class DType:
    """Stands in for ``numpy.dtype``; knows numbers, booleans and strings only."""

    def __init__(self, code: Any, *flags: Any) -> None:
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            _refuse(f'numpy.dtype({str(code)[:40]!r})')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or state[1:5] not in (
            ('<', None, None, None),
            ('>', None, None, None),
            ('|', None, None, None),
        ):
            _refuse('a numpy.dtype of records')
        self.dtype = self.dtype.newbyteorder(state[1])


class Array:
    """Stands in for ``numpy.ndarray`` and is filled from bytes."""

    array: np.ndarray | None = None

    def __init__(self, *args: Any) -> None:
        if args:
            _refuse('numpy.ndarray(...)')

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_column, data = state
        if not isinstance(kind, DType) or not isinstance(data, bytes):
            _refuse('a numpy.ndarray of objects')
        array = np.frombuffer(data, kind.dtype) if data else np.empty(0, kind.dtype)
        self.array = array.reshape(shape, order='F' if by_column else 'C').copy('K')


class HistoryBuffer:
    """Stands in for MMEngine's, which would write into its own class."""

    def __init__(self, *args: Any) -> None:
        if args:
            _refuse('HistoryBuffer(...)')

    def real(self) -> _HistoryBuffer:
        buffer = _HistoryBuffer()
        for name in vars(buffer):
            setattr(buffer, name, vars(self).get(name, getattr(buffer, name)))
        return buffer


def _new_array(kind: Any, shape: Any, code: Any) -> Array:
    """Stands in for ``_reconstruct``, for the one call that pickles make."""
    if kind is not Array or shape != (0,):
        _refuse('numpy.core.multiarray._reconstruct(...)')
    return Array()


def _new_scalar(kind: Any, data: Any) -> np.generic:
    """Stands in for NumPy's ``scalar``."""
    if not isinstance(kind, DType) or not isinstance(data, bytes):
        _refuse('numpy.core.multiarray.scalar(...)')
    return np.frombuffer(data, kind.dtype, 1)[0] if data else kind.dtype.type()


def _no_bytes(*args: Any) -> bytes:
    """Stands in for ``builtins.bytes``, which takes a length; empty arrays ask it."""
    if args:
        _refuse('builtins.bytes(...)')
    return b''


def _statistic(owner: Any, name: Any) -> str:
    """Stands in for ``builtins.getattr``.

    A HistoryBuffer pickles its table of statistics, hence ``getattr(HistoryBuffer,
    'mean')``. The real getattr would lead from there to ``__globals__`` and to code.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        _refuse(f'builtins.getattr(..., {str(name)[:40]!r})')
    return name


def _refuse(what: str) -> None:
    raise pickle.UnpicklingError(f'GLOBAL {what} was not allowed')


def _stand_ins() -> list[tuple[Callable, str]]:
    names = [
        (_statistic, 'builtins.getattr'),
        (_no_bytes, 'builtins.bytes'),
        (Array, 'numpy.ndarray'),
        (DType, 'numpy.dtype'),
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
    ]
    for core in ('core', '_core'):  # numpy 1 and numpy 2
        names.append((_new_array, f'numpy.{core}.multiarray._reconstruct'))
        names.append((_new_scalar, f'numpy.{core}.multiarray.scalar'))
    return names


def _is_replaced(entry: Any) -> bool:
    """Whether ours stand in for a name that somebody has allowed in this process."""
    if isinstance(entry, tuple):
        name = entry[1]
    else:
        name = f'{entry.__module__}.{entry.__name__}'
    return name.startswith('numpy.') or name in {name for _, name in _stand_ins()}


@contextmanager
def allow_list() -> Iterator[None]:
    """Let torch.load know our names, and leave the process as it was.

    What the user has allowed stays allowed, but for the names that have a stand-in.
    """
    with _LOCK:
        before = get_safe_globals()
        clear_safe_globals()
        add_safe_globals([entry for entry in before if not _is_replaced(entry)])
        add_safe_globals(_stand_ins())
        try:
            yield
        finally:
            clear_safe_globals()
            add_safe_globals(before)
