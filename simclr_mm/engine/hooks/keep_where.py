"""Restore tensors to earlier values by a flag on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flat_copy(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors of one device with few kernels: one vector for each dtype."""
    return [torch.cat([tensor.reshape(-1) for tensor in group]) for group in _by_dtype(tensors)]


def keep_where(flag: Tensor, before: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """If the flag is set, give tensors the values of their earlier ``flat_copy``.

    Otherwise they keep their values, also NaN. The flag is a bool without dimensions on their
    device.
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
            # Channels-last in memory: a reshape of this order copies nothing.
            tensor = tensor.permute(0, 2, 3, 1)
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())
