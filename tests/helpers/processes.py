"""Processes for tests that need real ones, without an import of everything in each.

A server, one for each test process, imports the package once and forks the others. It
has computed nothing: PyTorch does not train in the child of a process that has.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable

import torch.multiprocessing

CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(
    ['simclr_mm.commands.command_line', 'simclr_mm.engine', 'tensorboard', 'mmpretrain']
)


def start(function: Callable, *args) -> multiprocessing.Process:
    """Start ``function(*args)`` in a process with this one's environment."""
    process = CONTEXT.Process(target=_in_environment, args=(dict(os.environ), function, *args))
    process.start()
    return process


def run_ranks(function: Callable, processes: int, *args) -> None:
    """Run ``function(rank, *args)`` in so many processes; an error in one is raised."""
    torch.multiprocessing.start_processes(
        _as_rank, (dict(os.environ), function, *args), processes, start_method='forkserver'
    )


def _in_environment(environment: dict, function: Callable, *args) -> None:
    """The server's own environment is that of the test which first used it."""
    os.environ.clear()
    os.environ.update(environment)
    function(*args)


def _as_rank(rank: int, environment: dict, function: Callable, *args) -> None:
    _in_environment(environment, function, rank, *args)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def launched(rank: int, world_size: int, port: int) -> dict:
    """The variables that torch.distributed.run gives to a rank."""
    return dict(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
