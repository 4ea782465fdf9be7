"""Keep freed memory in training on a CPU and in the workers that read images."""

import ctypes
import functools
import gc
import platform
from collections.abc import Callable

from torch.utils.data import DataLoader

from .signals import obey_parent_only

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Ask glibc not to return freed memory to the system.

    Every training step allocates and frees the same activations. By default glibc maps and
    unmaps each large one, and the kernel clears every page again. This takes 10 to 25 % of
    the time of a small ResNet on two cores, and 10 % of a worker's time.

    Returns:
        Whether it worked. Other C libraries are left unchanged.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_TRIM_THRESHOLD, -1) and libc.mallopt(_M_MMAP_MAX, 0))


def prepare_workers(loader: DataLoader) -> None:
    """Let each worker of a loader begin with :func:`start_worker`."""
    first = loader.worker_init_fn
    if not isinstance(first, functools.partial) or first.func is not start_worker:
        loader.worker_init_fn = functools.partial(start_worker, first)


def leave_what_is_inherited(worker: int | None = None) -> None:
    """Let a forked worker delete nothing of its parent; also a ``worker_init_fn``.

    Garbage of the parent may hold the iterator of another loader. Deleted in a worker, it would
    look for its own workers, which are no children there, and print a traceback.
    """
    gc.freeze()


def start_worker(then: Callable[[int], None] | None, worker: int) -> None:
    """A ``worker_init_fn``, with the loader's own bound as ``then``."""
    leave_what_is_inherited()
    obey_parent_only()
    keep_freed_memory()
    if then is not None:
        then(worker)
