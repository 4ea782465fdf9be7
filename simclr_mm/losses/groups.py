"""Groups of images that are no negatives of each other.

Letters: n images on this rank, N images in the job, V views.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from simclr_mm.errors import UserError

from .gather import all_gather


class Groups(NamedTuple):
    """The groups of all images of the job, in rank order.

    Args:
        ids: (N,) a number that images of one group share.
        sizes: (N,) images in the group of each image, itself included.
    """

    ids: Tensor
    sizes: Tensor


def check_groups(groups: Tensor, n: int) -> None:
    """Refuse what are no groups of n images.

    Raises:
        UserError: ``groups`` is not (n,) of whole numbers.
    """
    whole = isinstance(groups, Tensor) and not (groups.is_floating_point() or groups.is_complex())
    if not whole or groups.shape != (n,):
        found = f'{groups.dtype} {tuple(groups.shape)}' if isinstance(groups, Tensor) else groups
        raise UserError(
            f'groups must be one whole number for each image, int64 ({n},), got {found}'
        )


def gather_groups(groups: Tensor, device: torch.device) -> Groups:
    """The groups of all ranks from this rank's (n,) numbers; a negative one is a group alone.

    The host waits for no device.

    Raises:
        UserError: All images are of one group. On a GPU a CUDA assertion says so.
    """
    own = groups.to(device, torch.int64, non_blocking=device.type == 'cuda')
    numbers = all_gather(own)  # (N,)
    alone = -1 - torch.arange(len(numbers), device=device)
    numbers = torch.where(numbers < 0, alone, numbers)
    ordered = numbers.sort().values
    first = torch.searchsorted(ordered, numbers)
    sizes = torch.searchsorted(ordered, numbers, right=True) - first
    several = (sizes < len(numbers)).all()
    problem = 'all images of a batch are of one group and have no negatives: use larger batches'
    if numbers.is_cuda:
        torch._assert_async(several, problem)
    elif not several:
        raise UserError(f'{problem}, or a table with more groups')
    # The place of a group's first image in the order is a number of the group.
    return Groups(first, sizes)
