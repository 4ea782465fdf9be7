"""Put tensors back to earlier values by a flag that stays on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flat_copy(tensors: Sequence[Tensor]) -> list[Tensor]:
    """A copy of tensors of one device in few kernels: one vector for each dtype."""
    return [torch.cat([tensor.reshape(-1) for tensor in group]) for group in _by_dtype(tensors)]


def keep_where(flag: Tensor, before: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Where the flag is set, give tensors the values of an earlier ``flat_copy``.

    What they hold where it is not set may be anything, NaN too, and is not changed.

    Args:
        flag: Bool, no dimensions, on the device of the tensors.
        before: ``flat_copy`` of the same tensors.
        tensors: Changed in place.
    """
    for old, group in zip(before, _by_dtype(tensors)):
        new = torch.cat([tensor.reshape(-1) for tensor in group])
        torch.where(flag, old, new, out=new)
        parts = new.split([tensor.numel() for tensor in group])
        torch._foreach_copy_(group, [part.view(tensor.shape) for part, tensor in zip(parts, group)])


def _by_dtype(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.ndim == 4 and tensor.stride(1) < tensor.stride(3):
            # Channels-last in memory: nothing has to be reordered.
            tensor = tensor.permute(0, 2, 3, 1)
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())
