"""NT-Xent, the loss of SimCLR.

Letters: n images on this rank, N images in the job, V views, d projection width.
"""
import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def nt_xent(z: Tensor,
            temperature: float,
            return_stats: bool = False,
            pairs: str = 'all') -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """Normalised temperature-scaled cross entropy over every view in the job.

    With s the cosine similarity over temperature, anchor i, and p one of the other
    views of its image:

    - ``pairs='all'``: the mean over the V - 1 positives p of
      -log(exp(s_ip) / sum of exp(s_ik) over all VN - 1 rows k other than i).
    - ``pairs='separate'``: the mean over the V - 1 positives p of the two-view loss,
      whose sum holds only rows k of the two views that i and p come from, 2N - 1 of
      them (AVGSimCLR).

    For V = 2 both are eq. (1).

    Source: SimCLR, arXiv:2002.05709, Sec. 2.1, eq. (1) and Algorithm 1.

    Args:
        z: (n, V, d) projections, the V views of one image along axis 1, the same n on
            every rank. Any float dtype, not normalised; computed in float32 (float64
            stays float64), under autocast too.
        temperature: tau > 0, no unit.
        return_stats: Also return what a training log wants to know.
        pairs: 'all' or 'separate', see above.

    Returns:
        Scalar in nats, the mean over this rank's V*n anchors. With the gradient average
        of DistributedDataParallel it is the loss over all V*N anchors: the keys are
        gathered from all ranks and carry gradients back to them.

        With ``return_stats`` also a dict of detached scalars over this rank's anchors:
        ``top1``, the share whose nearest other row is one of its positives;
        ``pos_sim`` and ``neg_sim``, mean cosine similarities to the positives and to
        the other images; ``chance``, the loss in nats when all rows are alike,
        ln(VN - 1), or ln(2N - 1) for 'separate'.

    Raises:
        ValueError: z is not (n, V, d) with V >= 2, temperature <= 0, ``pairs`` is
            unknown, or the job holds a single image.

    Differs: the reference code returns the sum of both views' terms, twice this value.
    """
    _check(z, temperature, pairs)
    n, num_views = z.shape[:2]
    with torch.autocast(z.device.type, enabled=False):
        rows = z if z.dtype == torch.float64 else z.float()
        rows = F.normalize(rows, dim=-1)  # (n, V, d)
        keys, first = _gather(rows)  # (N, V, d)
        sims = rows.flatten(0, 1) / temperature @ keys.flatten(0, 1).T  # (nV, NV)
        sims = sims.view(n, num_views, len(keys), num_views)
        own = sims.diagonal(first, 0, 2)  # (V, V, n), the anchor's own image
        view = torch.arange(num_views, device=z.device)
        others = (view[:, None] + view[1:]) % num_views  # (V, V-1)
        pos = own.permute(2, 0, 1)[:, view[:, None], others]  # (n, V, V-1)
        own_sum = own.sum()
        own.fill_(-math.inf)  # leaves only negatives in sims
        if pairs == 'all':
            loss = _all_pairs(sims, pos)
        else:
            loss = _separate_pairs(sims, pos, view, others)
        if not return_stats:
            return loss
        with torch.no_grad():
            stats = _stats(sims, pos, rows, keys, own_sum * temperature, temperature)
        rivals = len(keys) * (num_views if pairs == 'all' else 2) - 1
        stats['chance'] = torch.full_like(loss.detach(), math.log(rivals))
        return loss, stats


def _all_pairs(sims: Tensor, pos: Tensor) -> Tensor:
    lse_neg = sims.flatten(2).logsumexp(-1)  # (n, V)
    lse_pos = pos.logsumexp(-1)  # (n, V)
    # logaddexp(lse_neg, lse_pos) - pos without cancellation near convergence, where the
    # first term is tiny; for V = 2 the second is zero.
    return (_softplus(lse_neg - lse_pos) + (lse_pos - pos.mean(-1))).mean()


def _separate_pairs(sims: Tensor, pos: Tensor, view: Tensor, others: Tensor) -> Tensor:
    lse = sims.logsumexp(2)  # (n, V, V), of an anchor to all negatives of one view
    lse_neg = torch.logaddexp(lse[:, view[:, None], view[:, None]],
                              lse[:, view[:, None], others])  # (n, V, V-1)
    return _softplus(lse_neg - pos).mean()


def _softplus(x: Tensor) -> Tensor:
    return -F.logsigmoid(-x)  # F.softplus is off by up to 2e-9, above its threshold


def _stats(sims: Tensor, pos: Tensor, rows: Tensor, keys: Tensor, own_sum: Tensor,
           temperature: float) -> dict[str, Tensor]:
    hit = pos.amax(-1) > sims.flatten(2).amax(-1)  # (n, V)
    # Sum over all anchor-key pairs as one product of two sums, (d) by (d).
    all_sum = rows.sum((0, 1)) @ keys.sum((0, 1))
    num_neg = rows.shape[0] * rows.shape[1]**2 * (len(keys) - 1)
    return dict(
        top1=hit.to(sims.dtype).mean(),
        pos_sim=pos.mean() * temperature,
        neg_sim=(all_sum - own_sum) / num_neg)


def _check(z: Tensor, temperature: float, pairs: str) -> None:
    if z.ndim != 3 or z.shape[1] < 2:
        raise ValueError('z must be (n, V, d) with V >= 2 views of each image, got '
                         f'{tuple(z.shape)}')
    if not temperature > 0:
        raise ValueError(f'temperature must be > 0, got {temperature}: set '
                         'model.head.temperature (the paper uses 0.1 on ImageNet)')
    if pairs not in ('all', 'separate'):
        raise ValueError(f"pairs must be 'all' or 'separate', got {pairs!r}: set "
                         'model.head.pairs')
    if len(z) * _world_size() < 2:
        raise ValueError('one image has no negatives: set train_dataloader.batch_size '
                         'to 2 or more')


def _world_size() -> int:
    ready = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if ready else 1


def _gather(rows: Tensor) -> tuple[Tensor, int]:
    """Rows of all ranks in rank order, and the place of this rank's first."""
    if _world_size() == 1:
        return rows, 0
    return _GatherKeys.apply(rows), dist.get_rank() * len(rows)


class _GatherKeys(torch.autograd.Function):
    """All-gather along axis 0 whose backward sums the gradients of all ranks."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        ctx.n = len(rows)
        keys = rows.new_empty(dist.get_world_size() * ctx.n, *rows.shape[1:])
        dist.all_gather_into_tensor(keys, rows.contiguous())
        return keys

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.narrow(0, dist.get_rank() * ctx.n, ctx.n)
