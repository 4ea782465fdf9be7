"""Harmless stand-ins for classes and functions that a training checkpoint names.

MMEngine's training checkpoints name NumPy's arrays, HistoryBuffer and
``builtins.getattr``. With the real ones a file could allocate any amount of memory,
corrupt it (``numpy.dtype.__setstate__`` checks nothing) or run code. PyTorch gets
stand-ins under the same names. :func:`finished` replaces them afterwards.
"""

import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from mmengine.logging import HistoryBuffer as _HistoryBuffer
from torch import Tensor
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from simclr_mm.errors import UserError

_STATISTICS = ('min', 'max', 'current', 'mean')
_NUMBERS = re.compile(r'[biufcSU]\d{1,6}')  # numbers, booleans, strings; no objects
_LOCK = threading.Lock()  # PyTorch's allow-list belongs to the process
_DEEPEST = 100  # levels of nested containers; training checkpoints have about 6
_SHARED = 8  # tensors that may share a byte; tied weights are two


class DType:
    """Stands in for ``numpy.dtype``, for numbers, booleans and strings only."""

    def __init__(self, code: Any, *flags: Any) -> None:
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            _refuse(f'numpy.dtype({_shown(code)})')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        orders = [(order, None, None, None) for order in '<>|']
        if not isinstance(state, tuple) or state[1:5] not in orders:
            _refuse('a numpy.dtype of records')
        self.dtype = self.dtype.newbyteorder(state[1])


class Array:
    """Stands in for ``numpy.ndarray``, filled from bytes."""

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
    """Stands in for MMEngine's HistoryBuffer, which would write into its own class."""

    def __init__(self, *args: Any) -> None:
        if args:
            _refuse('HistoryBuffer(...)')

    def real(self) -> _HistoryBuffer:
        buffer = _HistoryBuffer()
        for name in vars(buffer):
            setattr(buffer, name, vars(self).get(name, getattr(buffer, name)))
        return buffer


def _new_array(kind: Any, shape: Any, code: Any) -> Array:
    """Stands in for NumPy's ``_reconstruct``. Pickles make only this call."""
    if kind is not Array or shape != (0,):
        _refuse('numpy.core.multiarray._reconstruct(...)')
    return Array()


def _new_scalar(kind: Any, data: Any) -> np.generic:
    """Stands in for NumPy's ``scalar``."""
    if not isinstance(kind, DType) or not isinstance(data, bytes):
        _refuse('numpy.core.multiarray.scalar(...)')
    return np.frombuffer(data, kind.dtype, 1)[0] if data else kind.dtype.type()


def _no_bytes(*args: Any) -> bytes:
    """Stands in for ``builtins.bytes``, which takes a length. Empty arrays call it."""
    if args:
        _refuse('builtins.bytes(...)')
    return b''


def _statistic(owner: Any, name: Any) -> str:
    """Stands in for ``builtins.getattr``.

    A HistoryBuffer pickles its table of statistics as ``getattr(HistoryBuffer, 'mean')``.
    The real getattr would lead from there to ``__globals__`` and to code.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        _refuse(f'builtins.getattr(..., {_shown(name)})')
    return name


def _shown(value: Any) -> str:
    """A value for an error. The full text of nested lists could take any memory."""
    return repr(value[:40]) if isinstance(value, str) else '...'


def _refuse(what: str) -> NoReturn:
    raise pickle.UnpicklingError(f'GLOBAL {what} was not allowed')


_STAND_INS: dict[str, Callable] = {
    'builtins.getattr': _statistic,
    'builtins.bytes': _no_bytes,
    'numpy.ndarray': Array,
    'numpy.dtype': DType,
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    'numpy.core.multiarray._reconstruct': _new_array,  # of NumPy 1
    'numpy.core.multiarray.scalar': _new_scalar,
    'numpy._core.multiarray._reconstruct': _new_array,  # of NumPy 2
    'numpy._core.multiarray.scalar': _new_scalar,
}


@contextmanager
def stand_ins() -> Iterator[None]:
    """Register the stand-ins with torch.load, and restore the process afterwards.

    Names that the user has allowed stay allowed, except those of NumPy and of a stand-in.
    """
    with _LOCK:
        before = get_safe_globals()
        names = [
            entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__name__}'
            for entry in before
        ]
        clear_safe_globals()
        add_safe_globals(
            [
                entry
                for entry, name in zip(before, names)
                if name not in _STAND_INS and not name.startswith('numpy.')
            ]
        )
        add_safe_globals([(replaced, name) for name, replaced in _STAND_INS.items()])
        try:
            yield
        finally:
            clear_safe_globals()
            add_safe_globals(before)


def finished(content: Any, size: int) -> Any:
    """Replace the stand-ins in the result of torch.load by the real objects, in place if possible.

    Raises:
        UserError: Its tensors claim more than a file of this size in bytes could hold, or
            containers are nested too deeply.
    """
    done: dict[int, tuple[Any, Any]] = {}  # id: (object, its replacement)
    tensor_bytes = 0  # as if no two tensors shared memory

    def visit(value: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise UserError(f'it is nested more than {_DEEPEST} levels deep')
        if id(value) not in done:
            done[id(value)] = value, value
            done[id(value)] = value, replacement(value, depth + 1)
        return done[id(value)][1]

    def replacement(value: Any, depth: int) -> Any:
        nonlocal tensor_bytes
        if isinstance(value, Tensor):
            tensor_bytes += value.numel() * value.element_size()
            return value
        if isinstance(value, Array):
            return np.empty(0) if value.array is None else value.array
        if isinstance(value, DType):
            return value.dtype
        if type(value) is tuple:
            return tuple([visit(item, depth) for item in value])
        if isinstance(value, list):
            value[:] = [visit(item, depth) for item in value]
        elif isinstance(value, dict):
            for key in value:
                value[key] = visit(value[key], depth)
        if hasattr(value, '__dict__') and not isinstance(value, type):
            visit(vars(value), depth)
        return value.real() if isinstance(value, HistoryBuffer) else value

    content = visit(content, 0)
    if tensor_bytes > _SHARED * size:
        raise UserError(f'its tensors claim {tensor_bytes} bytes, the file has {size}')
    return content
