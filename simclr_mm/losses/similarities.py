"""What NT-Xent needs of the matrix of similarities, one tile at a time.

Letters: V views, d projection width, W processes; m rows on this rank, M = Wm rows in
the job, T the side of a tile.
"""
import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from .gather import world_size

# Side of a tile. On a CPU one of 1 MB stays in the cache; a GPU wants fewer, larger
# kernels.
_SIDE = dict(cpu=512, cuda=2048)
# The most rows of a job of one process that keeps its matrix for the backward pass.
# Above, computing it again is quicker than reading it from memory.
_KEPT = dict(cpu=1448, cuda=4096)


class Similarities:
    """Sums of exp(similarity) over the other images' rows, and their gradient.

    What the two methods return is to be summed over ranks (the maxima: the maximum
    taken): every entry of the upper triangle of the (M, M) matrix belongs to one rank,
    and is computed there for both its rows.

    Args:
        keys: (M, d) unit rows of all ranks in rank order, the V views of an image next
            to each other.
        num_views: V.
        temperature: tau, no unit. M exp(1 / tau) must not overflow.
    """

    def __init__(self, keys: Tensor, num_views: int, temperature: float) -> None:
        self.keys = keys
        self.num_views = num_views
        self.exponent = math.log2(math.e) / temperature  # exp2 is the faster one
        rank, ranks = (dist.get_rank(), world_size()) if world_size() > 1 else (0, 1)
        m = len(keys) // ranks
        self.own = slice(rank * m, (rank + 1) * m)
        self.whole = None  # (M, M), where it is kept
        self.keep = ranks == 1 and m <= _KEPT.get(keys.device.type, _KEPT['cuda'])
        if not self.keep:
            side = max(_SIDE.get(keys.device.type, _SIDE['cuda']), num_views)
            self.tiles = list(tiles(rank, ranks, m, side - side % num_views))
            largest = max(_size(i) * _size(j) for i, j in self.tiles)
            self.scratch = keys.new_empty(largest)

    def sums(self, maxima: bool) -> tuple[Tensor, Tensor | None]:
        """Sums and maxima of exp(similarity / tau) over the rows of other images.

        Args:
            maxima: Whether to compute the second result, else None.

        Returns:
            (M) and (M).
        """
        if self.keep:
            everything = slice(None)
            exps = self.whole = self._exponentials(everything, everything)
            return exps.sum(1), exps.amax(1) if maxima else None
        sums, tops = self.keys.new_zeros(2, len(self.keys))
        for i, j in self.tiles:
            exps = self._exponentials(i, j, self.scratch)
            sums[i] += exps.sum(1)
            if maxima:
                torch.maximum(tops[i], exps.amax(1), out=tops[i])
            if i == j:
                continue  # the tile is its own mirror image
            sums[j] += exps.sum(0)
            if maxima:
                torch.maximum(tops[j], exps.amax(0), out=tops[j])
        return sums, tops if maxima else None

    def gradient(self, weights: Tensor) -> Tensor:
        """tau times the gradient of ``weights @ sums`` with respect to ``keys``.

        Args:
            weights: (M).

        Returns:
            (M, d).
        """
        # w_i exp_ij + w_j exp_ij: an entry counts in the sums of both its rows.
        if self.keep:
            both = torch.add(weights[:, None], weights).mul_(self.whole)
            return both @ self.keys
        grad = torch.zeros_like(self.keys)
        scratch = torch.empty_like(self.scratch)
        for i, j in self.tiles:
            exps = self._exponentials(i, j, self.scratch)
            both = scratch[:exps.numel()].view_as(exps)
            torch.add(weights[i, None], weights[j], out=both).mul_(exps)
            grad[i].addmm_(both, self.keys[j])
            if i != j:
                grad[j].addmm_(both.T, self.keys[i])
        return grad

    def _exponentials(self, i: slice, j: slice, out: Tensor | None = None) -> Tensor:
        """exp(similarity / tau) of a tile, zero within an image."""
        rows = self.keys[i] * self.exponent  # (T, d)
        if out is not None:
            out = out[:len(rows) * _size(j)].view(len(rows), -1)
        exps = torch.mm(rows, self.keys[j].T, out=out).exp2_()
        if i == j:
            images = len(rows) // self.num_views
            exps.view(images, self.num_views, images, self.num_views).diagonal(
                0, 0, 2).zero_()
        return exps


def tiles(rank: int, ranks: int, m: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles of one rank.

    Those on the diagonal are whole, i == j; of any others exactly one of (i, j) and
    (j, i) belongs to some rank. Each rank takes half of what lies between it and the
    others.

    Args:
        rank: 0 to W - 1.
        ranks: W.
        m: Rows on each rank.
        side: T, the most rows and columns of a tile.
    """
    rows = _cut(rank * m, (rank + 1) * m, side)
    for k, i in enumerate(rows):
        for j in rows[k:]:
            yield i, j
    for step in range(1, ranks // 2 + 1):
        other = (rank + step) % ranks
        i_range, j_range = [rank * m, (rank + 1) * m], [other * m, (other + 1) * m]
        if 2 * step == ranks:  # both ranks meet here: each takes half of the lower's
            if rank < other:
                i_range[1] -= m // 2
            else:
                j_range[0] = j_range[1] - m // 2
        for i in _cut(*i_range, side):
            for j in _cut(*j_range, side):
                yield i, j


def _cut(start: int, stop: int, side: int) -> list[slice]:
    return [slice(k, min(k + side, stop)) for k in range(start, stop, side)]


def _size(part: slice) -> int:
    return part.stop - part.start
