"""Sums over NT-Xent's matrix of similarities, one tile at a time.

Letters: V views, d projection width, W processes; m rows on this rank, M = Wm rows in
the job, T rows of a tile.
"""

import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from .gather import world_size

# Rows of a tile. On a CPU its 1 MB stays in the cache; a GPU wants larger kernels.
_SIDE = dict(cpu=512, cuda=2048)
# Up to so many rows a single process keeps the whole matrix for the backward pass. For
# more, computing it again is quicker than reading it from memory.
_KEPT = dict(cpu=1448, cuda=4096)


class Similarities:
    """Sums of exp(similarity) over the other images' rows, and their gradient.

    One rank computes each entry of the upper triangle of the (M, M) matrix, for both of its
    rows. The caller reduces the results over the ranks: sums and gradients by addition,
    maxima by maximum.

    Args:
        keys: (M, d) unit rows of all ranks in rank order, the V views of an image next
            to each other.
        num_views: V.
        temperature: tau, no unit. M exp(1 / tau) must not overflow.
        groups: (M / V,) a number for each image. Rows of one group count like rows of one
            image: not at all. None: each image is a group.
    """

    def __init__(
        self, keys: Tensor, num_views: int, temperature: float, groups: Tensor | None = None
    ) -> None:
        self.keys = keys
        self.num_views = num_views
        self.groups = None if groups is None else groups.repeat_interleave(num_views)  # (M)
        self.exponent = math.log2(math.e) / temperature  # exp2 is faster than exp
        rank, ranks = (dist.get_rank(), world_size()) if world_size() > 1 else (0, 1)
        m = len(keys) // ranks
        self.own = slice(rank * m, (rank + 1) * m)
        self.keep = ranks == 1 and m <= _KEPT.get(keys.device.type, _KEPT['cuda'])
        if not self.keep:
            side = _SIDE.get(keys.device.type, _SIDE['cuda'])
            self.sizes, self.pairs = tiles(rank, ranks, m, side, num_views)

    def sums(self, maxima: bool) -> tuple[Tensor, Tensor | None]:
        """(M) sums of exp(similarity / tau) over the other images' rows, and (M) maxima or None."""
        if self.keep:
            exps = torch.mm(self.keys * self.exponent, self.keys.T).exp2_()  # (M, M)
            self.whole = self._without_own_image(exps)
            if self.groups is not None:
                self.whole.masked_fill_(self.groups[:, None] == self.groups, 0)
            return exps.sum(1), exps.amax(1) if maxima else None
        sums, tops = self.keys.new_zeros(2, len(self.keys))
        sum_of, top_of = sums.split(self.sizes), tops.split(self.sizes)
        for i, j, exps in self._tiles():
            sum_of[i].add_(exps.sum(1))
            if maxima:
                torch.maximum(top_of[i], exps.amax(1), out=top_of[i])
            if i == j:
                continue  # the tile is its own mirror image
            sum_of[j].add_(exps.sum(0))
            if maxima:
                torch.maximum(top_of[j], exps.amax(0), out=top_of[j])
        return sums, tops if maxima else None

    def gradient(self, weights: Tensor) -> Tensor:
        """(M, d), tau times the gradient of ``weights @ sums`` with respect to ``keys``."""
        # w_i exp_ij + w_j exp_ij: an entry counts in the sums of both of its rows.
        if self.keep:
            both = torch.add(weights[:, None], weights).mul_(self.whole)
            return both @ self.keys
        grad = torch.zeros_like(self.keys)
        grad_of, keys_of = grad.split(self.sizes), self.keys.split(self.sizes)
        weights_of = weights.split(self.sizes)
        scratch = self._scratch()
        for i, j, exps in self._tiles():
            both = scratch[self.sizes[i], self.sizes[j]]
            torch.add(weights_of[i][:, None], weights_of[j], out=both).mul_(exps)
            grad_of[i].addmm_(both, keys_of[j])
            if i != j:
                grad_of[j].addmm_(both.T, keys_of[i])
        return grad

    def _tiles(self) -> Iterator[tuple[int, int, Tensor]]:
        """This rank's tiles of exp(similarity / tau), zero within an image or a group.

        All tiles share one memory.
        """
        rows = (self.keys * self.exponent).split(self.sizes)
        columns = [part.T for part in self.keys.split(self.sizes)]
        groups = None if self.groups is None else self.groups.split(self.sizes)
        scratch = self._scratch()
        for i, j in self.pairs:
            exps = scratch[self.sizes[i], self.sizes[j]]
            torch.mm(rows[i], columns[j], out=exps).exp2_()
            if groups is not None:  # an image is in its own group
                exps.masked_fill_(groups[i][:, None] == groups[j], 0)
            yield i, j, self._without_own_image(exps) if i == j else exps

    def _without_own_image(self, exps: Tensor) -> Tensor:
        images = len(exps) // self.num_views
        exps.view(images, self.num_views, images, self.num_views).diagonal(0, 0, 2).zero_()
        return exps

    def _scratch(self) -> dict[tuple[int, int], Tensor]:
        """One piece of memory, viewed as a tile of each shape."""
        shapes = {(self.sizes[i], self.sizes[j]) for i, j in self.pairs}
        memory = self.keys.new_empty(max(math.prod(shape) for shape in shapes))
        return {shape: memory[: math.prod(shape)].view(shape) for shape in shapes}


def tiles(
    rank: int, ranks: int, m: int, side: int, num_views: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """Cut the M rows into parts, and assign tiles of two parts to a rank.

    Exactly one of the tiles (i, j) and (j, i) belongs to a rank. A rank takes the tiles
    on its diagonal and half of those between it and each other rank. A part has about ``side``
    rows at most, in whole images. The m rows of a rank are a multiple of V.

    Returns:
        Rows of each part, and this rank's pairs of part indices.
    """
    # With an even number of ranks, opposite ranks share their tiles: each takes half.
    half = m // num_views // 2 * num_views if ranks % 2 == 0 else 0
    lower, upper = (_cut(part, side, num_views) for part in (half, m - half))
    count = len(lower) + len(upper)  # parts of a rank
    own = range(rank * count, (rank + 1) * count)
    pairs = [(i, j) for i in own for j in own if i <= j]
    for step in range(1, ranks // 2 + 1):
        other = (rank + step) % ranks
        theirs = range(other * count, (other + 1) * count)
        mine = own
        if 2 * step == ranks and rank < other:
            mine = own[: len(lower)]
        elif 2 * step == ranks:
            theirs = theirs[len(lower) :]
        pairs += [(i, j) for i in mine for j in theirs]
    return (lower + upper) * ranks, pairs


def _cut(rows: int, side: int, num_views: int) -> list[int]:
    """Split rows into parts of whole images, as equal as possible."""
    images = rows // num_views
    count = math.ceil(rows / max(side, num_views))
    return [(images * (k + 1) // count - images * k // count) * num_views for k in range(count)]
