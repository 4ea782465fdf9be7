"""Let training on a CPU, and the workers that read images, keep what they free."""

import ctypes
import platform
from collections.abc import Callable

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Ask glibc not to return freed memory to the system.

    Every step of training allocates and frees the same activations. By default glibc
    maps and unmaps each large one, and the kernel clears every page again: between a
    tenth and a quarter of the time of a small ResNet on two cores. A worker does the
    same with every image and its views: a tenth of its time.

    Returns:
        Whether the allocator was told; other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_TRIM_THRESHOLD, -1) and libc.mallopt(_M_MMAP_MAX, 0))


def start_worker(then: Callable[[int], None] | None, worker: int) -> None:
    """Prepare a DataLoader's worker: its ``worker_init_fn``, with ``then`` bound.

    Args:
        then: The loader's own ``worker_init_fn``, if it has one.
        worker: Its number.
    """
    keep_freed_memory()
    if then is not None:
        then(worker)
