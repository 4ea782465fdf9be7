"""Mean losses of (anchor, positive, negative) triples, computed in blocks of anchors.

Letters: b images in a block, n images on this rank, N images in the job, V views, d
projection width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .gather import gather_rows
from .inputs import check_projections, unit_rows
from .precision import full_float32

# Anchor-positive pairs in a block, each with a row of NV similarities. On a CPU larger
# blocks are no faster and take more memory.
_BLOCK = 128

# (b, V, V-1) positives and (b, V, NV) negatives to losses and flags, both of any shape
Terms = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


def mean_over_anchors(
    z: Tensor, terms: Terms, temperature: float | Tensor = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss over this rank's pairs of an anchor and a positive.

    The gradient of a block is computed together with its losses. Then the block's
    similarities are dropped, so memory grows linearly with N.

    Args:
        z: (n, V, d) projections of this rank, the same n on every rank. Any float dtype,
            not normalised. Computed in float32 (float64 stays float64), also under autocast.
        terms: Takes the cosine similarities of a block of anchors: (b, V, V-1) to their
            positives, and (b, V, NV) to all rows of the job, -inf for the anchor's own
            image. Returns (b, V, V-1) losses and, if it mines negatives, (b, V, V-1)
            booleans: whether the pair has a negative.
        temperature: The divisor that ``terms`` uses. A tensor gets its gradient.

    Returns:
        Scalar, with gradients to the rows of all ranks, and a dict of detached scalars:
        ``top1``, the share of anchors whose nearest other row is one of their positives;
        ``pos_sim`` and ``neg_sim``, mean cosine similarities to the positives and to the
        other images; ``mined``, the mean of the booleans, if ``terms`` mines.

    Raises:
        UserError: z is refused as in :func:`~.nt_xent.nt_xent`.
        RuntimeError: In the backward pass, if a second derivative is asked for.
    """
    check_projections(z)
    num_views = z.shape[1]
    size = max(1, _BLOCK // (num_views * (num_views - 1)))  # b
    with full_float32(z.device):
        rows, _ = unit_rows(z if z.dtype == torch.float64 else z.float())  # (n, V, d)
        keys, first = gather_rows(rows)  # (N, V, d)
        anchors = rows
        if isinstance(temperature, Tensor):
            # A factor of 1 that carries the gradient of the temperature: the losses
            # depend on anchor . key / temperature alone.
            anchors = rows * (temperature.detach() / temperature).reshape(())
        loss, hits, *mined = _SumOverBlocks.apply(anchors, keys, first, size, terms)
        num_anchors = len(rows) * num_views
        num_pairs = num_anchors * (num_views - 1)
        stats = dict(top1=hits / num_anchors, **_similarities(rows.detach(), keys.detach()))
        if mined:
            stats['mined'] = mined[0] / num_pairs
    return loss / num_pairs, stats


class _SumOverBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, rows: Tensor, keys: Tensor, first: int, size: int, terms: Terms
    ) -> tuple[Tensor, ...]:
        needs_grad = any(ctx.needs_input_grad)
        keys = keys.detach().requires_grad_(needs_grad)
        keys_grad, rows_grad = torch.zeros_like(keys), torch.empty_like(rows)
        totals = rows.new_zeros(())
        for start in range(0, len(rows), size):
            block = rows[start : start + size].detach().requires_grad_(needs_grad)
            with torch.set_grad_enabled(needs_grad):
                loss, *counts = _block_sums(block, keys, first + start, terms)
            totals = totals + torch.stack((loss.detach(), *counts))
            if needs_grad:
                grads = torch.autograd.grad(loss, (block, keys))
                rows_grad[start : start + size] = grads[0]
                keys_grad += grads[1]
        ctx.save_for_backward(rows_grad, keys_grad)
        sums = totals.unbind()
        ctx.mark_non_differentiable(*sums[1:])
        return sums

    @staticmethod
    def backward(ctx, grad: Tensor, *_) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                'this loss can be differentiated once: create_graph=True is not supported'
            )
        rows_grad, keys_grad = ctx.saved_tensors
        return grad * rows_grad, grad * keys_grad, None, None, None


def _block_sums(block: Tensor, keys: Tensor, first: int, terms: Terms) -> tuple[Tensor, ...]:
    """Sums over a block: losses, hits and, where the loss mines, mined pairs.

    ``first`` is the place of the block's first image among the keys.
    """
    b, num_views = block.shape[:2]
    sims = block.flatten(0, 1) @ keys.flatten(0, 1).T  # (bV, NV)
    sims = sims.view(b, num_views, len(keys), num_views)
    own = sims.diagonal(first, 0, 2)  # (V, V, b), the anchor's own image
    view = torch.arange(num_views, device=block.device)
    others = (view[:, None] + view[1:]) % num_views  # (V, V-1)
    pos = own.permute(2, 0, 1)[:, view[:, None], others]  # (b, V, V-1)
    own.fill_(-torch.inf)  # only negatives stay in sims
    neg = sims.flatten(2)  # (b, V, NV)
    losses, mined = terms(pos, neg)
    with torch.no_grad():
        tie = 8 * torch.finfo(pos.dtype).eps  # a collapsed model has no hits
        hits = pos.amax(-1) > neg.amax(-1) + tie
    counts = [hits] if mined is None else [hits, mined]
    return (losses.sum(), *(flags.sum().to(losses.dtype) for flags in counts))


def _similarities(rows: Tensor, keys: Tensor) -> dict[str, Tensor]:
    """Mean cosines. A sum over pairs of rows is the product of two sums of rows."""
    n, num_views = rows.shape[:2]
    every = rows.sum((0, 1)) @ keys.sum((0, 1))
    own = rows.sum(1).square().sum()
    itself = rows.square().sum()
    return dict(
        pos_sim=(own - itself) / (n * num_views * (num_views - 1)),
        neg_sim=(every - own) / (n * num_views**2 * (len(keys) - 1)),
    )


def closest_semi_hard(pos: Tensor, neg: Tensor, margin: float = torch.inf) -> Tensor:
    """For each pair of an anchor and a positive, the closest negative that is farther.

    Source: SimCLR, arXiv:2002.05709, Sec. 5.1: negatives that "are within the loss
    margin and closest in distance, but farther than positive examples", after FaceNet,
    arXiv:1503.03832, Sec. 3.2.

    Args:
        pos: (b, V, V-1) cosine similarities of anchors to their positives.
        neg: (b, V, K) to their negatives; -inf where there is none.
        margin: In cosine similarity. Only negatives above positive - margin count.
            Infinite for a loss without a margin.

    Returns:
        (b, V, V-1) similarities of the chosen negatives, with gradients to them. -inf for a pair
        without one: every negative is at least as near as the positive, or beyond the margin.
    """
    neg, limit = neg[:, :, None], pos[..., None]  # (b, V, 1, K), (b, V, V-1, 1)
    semi_hard = (neg < limit) & (neg > limit - margin)  # (b, V, V-1, K)
    return torch.where(semi_hard, neg, -torch.inf).amax(-1)  # (b, V, V-1)
