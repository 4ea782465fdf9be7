"""Gather rows from all ranks, with gradients back to their ranks.

Letters: n images on this rank, N images in the job, W processes.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from simclr_mm.errors import UserError


def world_size() -> int:
    """Processes in the job, 1 without torch.distributed."""
    ready = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if ready else 1


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Rows of all ranks, (N, ...), in rank order, and the place of this rank's first row.

    The backward pass sums gradients over all ranks.

    Raises:
        UserError: The ranks' shapes differ.
    """
    check_same_shape(rows)
    if world_size() == 1:
        return rows, 0
    return _GatherRows.apply(rows), dist.get_rank() * len(rows)


def check_same_shape(rows: Tensor) -> None:
    """Refuse ranks with different shapes: a gather would hang or mix up rows.

    Every rank has to call it. On a GPU the comparison runs on the device without a wait.
    There a difference ends the process with a CUDA assertion that shows the message.

    Raises:
        UserError: The ranks' shapes differ.
    """
    if world_size() == 1:
        return
    shape = torch.tensor(rows.shape).to(rows.device, non_blocking=rows.is_cuda)
    shapes = all_gather(shape[None])  # (W, dimensions)
    advice = 'use one train_dataloader.batch_size on all ranks, drop_last=True, and as many views'
    if rows.is_cuda:
        torch._assert_async((shapes == shape).all(), f'shapes of projections differ: {advice}')
    elif (shapes != shape).any():
        each = ', '.join(str(tuple(other)) for other in shapes.tolist())
        raise UserError(f'the ranks hold projections of different shapes, {each}: {advice}')


def all_gather(rows: Tensor) -> Tensor:
    """Rows of all ranks in rank order, without gradient: (n, ...) -> (N, ...)."""
    if world_size() == 1:
        return rows
    rows = rows.contiguous()
    everyone = rows.new_zeros(world_size() * len(rows), *rows.shape[1:])
    if rows.is_cuda and dist.get_backend() == 'gloo':  # gloo has only all_reduce on CUDA
        first = dist.get_rank() * len(rows)
        everyone[first : first + len(rows)] = rows
        dist.all_reduce(everyone)
    else:
        dist.all_gather_into_tensor(everyone, rows)
    return everyone


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        ctx.n = len(rows)
        return all_gather(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.narrow(0, dist.get_rank() * ctx.n, ctx.n)
