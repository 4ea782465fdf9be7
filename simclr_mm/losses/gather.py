"""Rows of all ranks, with gradients that go back to them."""
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Processes in the job, 1 without torch.distributed."""
    ready = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if ready else 1


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Rows of all ranks in rank order, and the place of this rank's first.

    Args:
        rows: (n, ...), the same shape and dtype on every rank.

    Returns:
        (N, ...), whose gradients are summed over all ranks on their way back, and an
        index into its first axis.
    """
    if world_size() == 1:
        return rows, 0
    return _GatherRows.apply(rows), dist.get_rank() * len(rows)


def check_same_shape(rows: Tensor) -> None:
    """Refuse ranks with different shapes, which a gather would hang on or mix up.

    The shapes are exchanged in every step. On a GPU they are read where this rank's
    differs from the step before, or in the first: a read waits for the device, and a
    step in which no rank's shape has changed is as good as the last.

    Args:
        rows: What is about to be gathered.

    Raises:
        ValueError: Another rank's shape differs.
    """
    global _last_shape
    if world_size() == 1:
        return
    shape = torch.tensor(rows.shape, device=rows.device)
    shapes = shape.new_empty(world_size(), rows.ndim)
    dist.all_gather_into_tensor(shapes.view(-1), shape)
    if rows.is_cuda and rows.shape == _last_shape:
        return
    if (shapes != shape).any():
        each = ', '.join(str(tuple(other)) for other in shapes.tolist())
        raise ValueError(
            f'the ranks hold projections of different shapes, {each}: use one '
            'train_dataloader.batch_size on all ranks, drop_last=True, and as many '
            'views everywhere')
    _last_shape = rows.shape


_last_shape = None


class _GatherRows(torch.autograd.Function):

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        ctx.n = len(rows)
        keys = rows.new_empty(world_size() * ctx.n, *rows.shape[1:])
        dist.all_gather_into_tensor(keys, rows.contiguous())
        return keys

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.narrow(0, dist.get_rank() * ctx.n, ctx.n)
