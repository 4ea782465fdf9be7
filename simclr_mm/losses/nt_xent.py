"""NT-Xent, the loss of SimCLR, without the full matrix of similarities.

Letters: n images on this rank, N images in the job, V views, d projection width, W
processes; m = nV rows on this rank, M = NV rows in the job.
"""

import math
from itertools import combinations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import logsigmoid

from simclr_mm.errors import UserError

from .gather import all_gather, check_same_shape, world_size
from .groups import Groups, check_groups, gather_groups
from .inputs import check_projections, check_temperature, unit_rows
from .precision import full_float32
from .similarities import Similarities

# For lower temperatures exp(1 / temperature) and sums of it overflow float64.
_LOWEST = 0.002


def nt_xent(
    z: Tensor, temperature: float | Tensor, pairs: str = 'all', groups: Tensor | None = None
) -> Tensor:
    """Normalised temperature-scaled cross entropy over every view in the job.

    With s the cosine similarity over temperature, anchor i, and p one of the other
    views of its image:

    - ``pairs='all'``: the mean over the V - 1 positives p of
      -log(exp(s_ip) / sum of exp(s_ik) over all VN - 1 rows k other than i).
    - ``pairs='separate'``: the mean of the two-view losses of all V(V - 1)/2 pairs of
      views, each with 2N - 1 rows in its sum (AVGSimCLR).

    For V = 2 both are eq. (1).

    With ``groups`` the sum leaves out the rows of the other images of the anchor's group: images
    of one patient, slide or clip are no negatives of each other, on whatever rank they are.

    The value and the gradient are exact and the memory is linear in N. Similarities are
    computed in tiles of the upper triangle of their matrix, summed, dropped, and computed
    again in the backward pass. A single process with up to 1448 rows on a CPU or 4096 on a
    GPU keeps the whole matrix instead.

    One process computes each similarity of the job: M^2 / (2W) for each process and pass.
    A process moves, in bytes of float32, 4 Md for all rows, 8 Md for their gradients (an
    all_reduce moves everything twice) and 20 M for sums, maxima and weights.

    Source: SimCLR, arXiv:2002.05709, Sec. 2.1, eq. (1) and Algorithm 1.

    Args:
        z: (n, V, d) projections, the V views of one image along axis 1, the same n on
            every rank. Any float dtype and any strides, not normalised. Computed in
            float32 (float64 stays float64), also under autocast and TF32. Computed in
            float64 for temperatures under about 0.013. A row of zeros has cosine 0 with
            every other row and the gradient 0.
        temperature: tau >= 0.002, no unit. A tensor gets its gradient; its value is read
            from the device.
        pairs: 'all' or 'separate', see above.
        groups: (n,) whole numbers, the group of each image; a negative number is a group of
            one image. None: each image is a group.

    Returns:
        Scalar in nats, the mean over this rank's V*n anchors. Gradients reach the rows of
        all ranks, so with the gradient average of DistributedDataParallel it is the loss
        over all V*N anchors. It can be differentiated once.

    Raises:
        UserError: z is not (n, V, d) with V >= 2, temperature < 0.002, ``pairs`` is
            unknown, the job holds a single image or a single group, groups are not (n,) whole
            numbers, or ranks differ in the shape of z.

    Differs: the reference code returns the sum of both views' terms, twice this value.
    """
    return _nt_xent(z, temperature, pairs, groups, with_stats=False)[0]


def nt_xent_with_stats(
    z: Tensor, temperature: float | Tensor, pairs: str = 'all', groups: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """:func:`nt_xent`, and statistics for the training log.

    Returns:
        The loss, and detached scalars over this rank's anchors: ``top1``, the share of
        anchors that are closer to one of their positives than to any negative (a tie is a
        miss); ``pos_sim`` and ``neg_sim``, mean cosine similarities to the positives and to
        the other images; ``chance``, the loss in nats when all rows are alike, ln(VN - 1).
        For 'separate' they are means over the pairs of views, and chance is ln(2N - 1).
        With groups, negatives are the images of other groups, and chance is the mean of
        ln(V - 1 + number of negatives) over this rank's anchors.
    """
    return _nt_xent(z, temperature, pairs, groups, with_stats=True)


@torch.compiler.disable
def _nt_xent(
    z: Tensor, temperature: float | Tensor, pairs: str, groups: Tensor | None, with_stats: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    check_projections(z)
    if groups is not None:
        check_groups(groups, len(z))
    tau = check_temperature(temperature, 'uses 0.1 on ImageNet', _LOWEST)
    if pairs not in ('all', 'separate'):
        raise UserError(f"pairs must be 'all' or 'separate', got {pairs!r}: set model.head.pairs")
    views = range(z.shape[1])
    parts = list(combinations(views, 2)) if pairs == 'separate' else [tuple(views)]
    results = []
    for part in parts:
        rows = z if len(part) == len(views) else z[:, list(part)]
        with full_float32(z.device):
            results.append(_NTXent.apply(rows, temperature, tau, groups, with_stats))
    # The loss, and with statistics three more numbers, or four with groups.
    loss, *numbers = (
        values[0] if len(parts) == 1 else torch.stack(values).mean() for values in zip(*results)
    )
    stats = dict(zip(('top1', 'pos_sim', 'neg_sim', 'chance'), numbers))
    if with_stats and groups is None:
        num_rows = len(z) * world_size() * len(parts[0])
        stats['chance'] = loss.new_full((), math.log(num_rows - 1))
    return loss, stats


class _NTXent(torch.autograd.Function):
    """The loss and three statistics of one set of views."""

    @staticmethod
    def forward(
        ctx,
        z: Tensor,
        temperature: float | Tensor,
        tau: float,
        groups: Tensor | None,
        with_stats: bool,
    ) -> tuple[Tensor, ...]:
        check_same_shape(z)
        n, num_views, d = z.shape
        ctx.dtype, ctx.temperature = z.dtype, temperature
        own, norms = unit_rows(z.to(_dtype(z, tau)).contiguous())  # (n, V, d), (n, V, 1)
        mates = None if groups is None else gather_groups(groups, z.device)
        similarities = Similarities(
            all_gather(own.view(-1, d)), num_views, tau, None if mates is None else mates.ids
        )
        sums, tops = similarities.sums(maxima=with_stats)  # (M), (M)
        if world_size() > 1:
            dist.all_reduce(sums)
            if tops is not None:
                dist.all_reduce(tops, dist.ReduceOp.MAX)
        sums = sums[similarities.own].view(n, num_views)

        cosines = _positives(own)  # (n, V, V-1), or (n, 1, 1) for V = 2
        pos = cosines / tau
        lse_pos = pos[..., 0] if num_views == 2 else pos.logsumexp(-1)  # (n, V)
        margin = lse_pos - sums.log()  # (n, V)
        # This is logaddexp(negatives, positives) - positives. Near convergence it is tiny
        # and a subtraction would lose its digits.
        loss = -logsigmoid(margin).mean()
        wrong = margin.neg().sigmoid_()  # (n, V), 1 - P(positives)
        pull = wrong[..., None]  # (n, V, V-1), - d loss / d pos, times nV
        if num_views > 2:
            loss += lse_pos.mean() - pos.mean()
            share = (pos - lse_pos[..., None]).exp_()
            pull = 1 / (num_views - 1) - share + share * pull
        ctx.save_for_backward(norms, wrong / sums, pull)
        ctx.similarities = similarities
        ctx.scale = 1 / (n * num_views * tau)
        results = [loss]
        if tops is not None:
            nearest = tops[similarities.own].view(n, num_views).log_().mul_(tau)
            results += _statistics(similarities, cosines, nearest, norms, mates)
        dtype = torch.promote_types(ctx.dtype, torch.float32)
        results = [value.to(dtype) for value in results]
        ctx.mark_non_differentiable(*results[1:])
        return tuple(results)

    @staticmethod
    def backward(ctx, grad: Tensor, *_) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                'nt_xent can be differentiated once: create_graph=True is not supported'
            )
        with full_float32(grad.device):
            gradient, along = _NTXent._gradient(ctx, grad)
        of_temperature = None
        if ctx.needs_input_grad[1]:
            # The loss depends on the unit rows u through u_i . u_k / tau alone. For small e,
            # scaling all rows by 1 + e equals dividing tau by 1 + 2e.
            of_temperature = along.sum() / (-2 * ctx.temperature.to(along))
            of_temperature = of_temperature.to(ctx.temperature).view_as(ctx.temperature)
        return gradient, of_temperature, None, None, None

    @staticmethod
    def _gradient(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of z, and of the length of each unit row, (n, V, 1)."""
        norms, weights, pull = ctx.saved_tensors
        n, num_views = weights.shape
        similarities = ctx.similarities
        scale = grad * ctx.scale
        all_grad = similarities.gradient(all_gather((weights * scale).view(-1)))
        if world_size() > 1:
            dist.all_reduce(all_grad)
        own = similarities.keys[similarities.own].view(n, num_views, -1)  # (n, V, d)
        out = all_grad[similarities.own].view_as(own)
        pull = pull * scale
        for step in range(1, num_views):
            # Views v and v + step, each as the anchor of the other.
            both = pull[..., step - 1] + pull[..., -step].roll(-step, 1)  # (n, V)
            out.addcmul_(both[..., None], own.roll(-step, 1), value=-1)
        # Through the normalisation: the component along a row has no effect.
        along = torch.linalg.vecdot(out, own)[..., None]  # (n, V, 1)
        out.addcmul_(along, own, value=-1).div_(norms)
        return out.to(ctx.dtype), along


def _dtype(z: Tensor, temperature: float) -> torch.dtype:
    """float32, or float64 where sums of exp(1 / temperature) would overflow it."""
    largest = 1 / temperature + math.log(z.shape[0] * z.shape[1] * world_size())
    return torch.float64 if z.dtype == torch.float64 or largest > 85 else torch.float32


def _positives(own: Tensor) -> Tensor:
    """Cosines of each view v with views v+1, v+2, ... (mod V): (n, V, d) -> (n, V, V-1).

    (n, 1, 1) for V = 2, where both cosines are equal.
    """
    num_views = own.shape[1]
    if num_views == 2:
        return torch.linalg.vecdot(own[:, :1], own[:, 1:])[..., None]
    return torch.stack(
        [torch.linalg.vecdot(own, own.roll(-step, 1)) for step in range(1, num_views)], -1
    )


def _statistics(
    similarities: Similarities,
    cosines: Tensor,
    nearest: Tensor,
    norms: Tensor,
    mates: Groups | None,
) -> tuple[Tensor, ...]:
    """top1, pos_sim and neg_sim, and with groups chance.

    ``cosines`` are from :func:`_positives`, ``nearest`` (n, V) each anchor's highest cosine to
    a negative, and ``norms`` (n, V, 1) the divisors of :func:`~.inputs.unit_rows`.
    """
    keys, num_views = similarities.keys, similarities.num_views
    own = keys[similarities.own]  # (m, d)
    # In a collapsed model all cosines are equal up to rounding.
    tie = 8 * torch.finfo(cosines.dtype).eps
    hit = cosines.amax(-1) - nearest > tie  # (n, V)
    pos_sim = cosines.mean()
    # The sum over all anchor-key pairs is a product of two sums of rows, (d) by (d). Pairs
    # within an image or a group are subtracted below.
    all_sum = keys.sum(0)
    own_sum = all_sum if len(own) == len(keys) else own.sum(0)
    if mates is not None:
        return _grouped(similarities, mates, hit, pos_sim, own_sum @ all_sum)
    num_neg = len(keys) - num_views
    neg_sim = torch.dot(own_sum, all_sum) / (len(own) * num_neg)
    itself = norms.isfinite().mean(dtype=cosines.dtype)  # 0 for a row of zeros, else 1
    neg_sim -= (itself + (num_views - 1) * pos_sim) / num_neg
    return hit.mean(dtype=cosines.dtype), pos_sim, neg_sim


def _grouped(
    similarities: Similarities, mates: Groups, hit: Tensor, pos_sim: Tensor, total: Tensor
) -> tuple[Tensor, ...]:
    """top1, pos_sim, neg_sim and chance, from the sum over all pairs of own rows and keys."""
    keys, num_views, own = similarities.keys, similarities.num_views, similarities.own
    ids, sizes = (each.repeat_interleave(num_views) for each in mates)  # (M), in rows
    sums = torch.zeros_like(keys).index_add_(0, ids, keys)  # (M, d), the sum of group g in row g
    within = torch.linalg.vecdot(keys[own], sums[ids[own]]).sum()
    negatives = len(keys) - num_views * sizes[own]  # (m)
    neg_sim = (total - within) / negatives.sum()
    chance = (negatives + num_views - 1).to(keys.dtype).log().mean()
    return hit.mean(dtype=keys.dtype), pos_sim, neg_sim, chance
