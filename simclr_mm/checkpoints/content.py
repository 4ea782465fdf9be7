"""What came out of a pickle: put in order, and measured against its file."""

from typing import Any

import numpy as np
from torch import Tensor

from simclr_mm.errors import UserError

from .allow_list import Array, DType, HistoryBuffer

_DEEPEST = 100  # containers inside one another; training checkpoints have about 6
_SHARED = 8  # tensors that may share a byte: tied weights are two


def finished(content: Any, size: int) -> Any:
    """Replace the stand-ins of a loaded checkpoint by what they stand for.

    Args:
        content: What torch.load gave; changed in place where it can be.
        size: Of its file, in bytes.

    Returns:
        The content.

    Raises:
        ValueError: its tensors claim more than the file could hold, or it is nested too
            deeply to be worked with.
    """
    finisher = _Finisher()
    content = finisher.visit(content, 0)
    if finisher.tensor_bytes > _SHARED * size:
        raise UserError(f'its tensors claim {finisher.tensor_bytes} bytes, the file has {size}')
    return content


class _Finisher:
    """Visits every object of a checkpoint once, however often it is referred to."""

    def __init__(self) -> None:
        self.tensor_bytes = 0  # as if no two of them shared memory
        self._done: dict[int, tuple[Any, Any]] = {}  # id: (object, what replaces it)

    def visit(self, value: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise UserError(f'it is nested more than {_DEEPEST} levels deep')
        if id(value) not in self._done:
            self._done[id(value)] = value, value
            self._done[id(value)] = value, self._replacement(value, depth + 1)
        return self._done[id(value)][1]

    def _replacement(self, value: Any, depth: int) -> Any:
        if isinstance(value, Tensor):
            self.tensor_bytes += value.numel() * value.element_size()
            return value
        if isinstance(value, Array):
            return np.empty(0) if value.array is None else value.array
        if isinstance(value, DType):
            return value.dtype
        if type(value) is tuple:
            return tuple([self.visit(item, depth) for item in value])
        if isinstance(value, list):
            value[:] = [self.visit(item, depth) for item in value]
        elif isinstance(value, dict):
            for key in value:
                value[key] = self.visit(value[key], depth)
        if hasattr(value, '__dict__') and not isinstance(value, type):
            self.visit(vars(value), depth)
        return value.real() if isinstance(value, HistoryBuffer) else value
