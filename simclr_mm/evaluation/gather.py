"""Gather results of all ranks through the process group, without files."""

from itertools import chain, zip_longest
from typing import Any

from mmengine import dist
from mmengine.evaluator import metric

# Results of each rank in one transfer: 256 features of 2048 numbers are 2 MB.
_AT_ONCE = 256


def gather_results(results: list, size: int) -> list | None:
    """Put the results of all ranks into the order of the dataset, on rank 0; None on the others.

    Besides the results, only rank 0 needs memory, for 256 results of each rank. Samplers repeat
    some images to make the ranks even: there are ``size`` of them in the dataset.
    """
    rank, processes = dist.get_dist_info()
    if processes == 1:
        return results[:size]
    parts: list[list] = [[] for _ in range(processes)]
    for start in range(0, max(dist.all_gather_object(len(results))), _AT_ONCE):
        pieces = dist.gather_object(results[start : start + _AT_ONCE])
        for part, piece in zip(parts, pieces or ()):
            part += piece
    if rank != 0:
        return None
    missing = object()
    in_order = chain.from_iterable(zip_longest(*parts, fillvalue=missing))
    return [result for result in in_order if result is not missing][:size]


def install_gathering() -> None:
    """Make every MMEngine metric gather with :func:`gather_results`.

    MMEngine writes a folder ``.dist_test`` in the current directory, which all machines would have
    to share. A metric with ``collect_device='gpu'`` or ``collect_dir`` keeps MMEngine's way.
    """
    metric.collect_results = _collect_results


def _collect_results(
    results: list, size: int, device: str = 'cpu', tmpdir: str | None = None
) -> list[Any] | None:
    if device == 'cpu' and tmpdir is None:
        return gather_results(results, size)
    return dist.collect_results(results, size, device, tmpdir)
