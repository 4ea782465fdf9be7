"""Checks that the ranks of a job agree before they train together."""

import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import mmengine
import numpy
import torch
from mmengine import dist
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from simclr_mm.errors import UserError

_PACKAGE = Path(__file__).parents[1]


def on_first_rank(function: Callable[[], Any]) -> Any:
    """Call a function on rank 0. Every rank gets its result or raises its UserError."""
    answer: list[Any] = [None, None]  # a result, an error
    if dist.is_main_process():
        try:
            answer[0] = function()
        except UserError as error:
            answer[1] = error
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def require_same(mine: Mapping[str, Any], advice: str) -> None:
    """Compare the values of all ranks, by name, with those of rank 0.

    Raises:
        UserError: On all ranks, if two values differ. It names the rank and the key, and ends
            with the advice.
    """
    first, *others = dist.all_gather_object(dict(mine))
    for rank, other in enumerate(others, start=1):
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                raise UserError(
                    f'rank {rank} has {key} = {other.get(key)!r}, rank 0 has '
                    f'{first.get(key)!r}: {advice}'
                )


def share_statistics(model: nn.Module) -> None:
    """Give all ranks rank 0's statistics of batch norm, which are those that it saves.

    Otherwise each rank of a validation embeds its images with statistics of its own.
    """
    for module in model.modules() if dist.get_world_size() > 1 else ():
        if isinstance(module, _NormBase) and not isinstance(module, nn.SyncBatchNorm):
            for statistic in module.buffers(recurse=False):
                dist.broadcast(statistic)


def versions() -> dict[str, str]:
    """Versions of the packages on which losses depend, and a short hash of this one's code."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob('*.py')):
        if '.mim' not in file.parts:
            digest.update(file.read_bytes())
    found = {each.__name__: str(each.__version__) for each in (torch, numpy, mmengine)}
    return {**found, 'code of simclr_mm': digest.hexdigest()[:8]}


def plain_model(runner: Runner) -> nn.Module:
    """The model without the wrapper of distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def meet(timeout: float) -> None:
    """Connect the ranks of a job on CPUs."""
    rank, ranks = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    try:
        torch.distributed.init_process_group(
            'gloo', rank=rank, world_size=ranks, timeout=timedelta(seconds=timeout)
        )
    except RuntimeError as error:
        raise UserError(
            f'the {ranks} ranks do not find each other ({str(error).splitlines()[0]}): start all '
            'of them, and look at MASTER_ADDR, MASTER_PORT and GLOO_SOCKET_IFNAME. A torchrun that '
            'starts ranks again needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1.'
        ) from error
