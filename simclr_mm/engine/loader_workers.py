"""How the processes of a loader that read images begin, and how they end."""

import functools
import gc
import multiprocessing.queues
import os
import sys
from collections.abc import Callable

from torch.utils.data import DataLoader

from .allocator import keep_freed_memory
from .signals import obey_parent_only

NOT_PASSED = 74  # the exit code of a worker whose images do not reach its parent, as EX_IOERR


def prepare_workers(loader: DataLoader) -> None:
    """Let each worker of a loader begin with :func:`start_worker`."""
    first = loader.worker_init_fn
    if not isinstance(first, functools.partial) or first.func is not start_worker:
        loader.worker_init_fn = functools.partial(start_worker, first)


def start_plain_worker(worker: int | None = None) -> None:
    """A ``worker_init_fn``: delete nothing of the parent, and end if no image reaches it.

    Garbage of the parent may hold the iterator of another loader. Deleted in a worker, it would
    look for its own workers, which are no children there, and print a traceback. An error of the
    thread that passes images on would only be printed, and the parent would wait for ever.
    """
    gc.freeze()
    queue = multiprocessing.queues.Queue  # the method is there to be replaced
    queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def start_worker(then: Callable[[int], None] | None, worker: int) -> None:
    """A ``worker_init_fn``, with the loader's own bound as ``then``."""
    start_plain_worker()
    obey_parent_only()
    keep_freed_memory()
    if then is not None:
        then(worker)


def _end(error: Exception, images: object) -> None:
    print(f'a loader worker cannot pass its images on: {error}', file=sys.stderr, flush=True)
    os._exit(NOT_PASSED)
