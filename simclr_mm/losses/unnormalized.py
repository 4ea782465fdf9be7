"""NT-Xent without the L2 norm, for the paper's Table 5.

Letters: n images on this rank, N images in the job, V views, d projection width.
"""

import math

import torch
from torch import Tensor

from simclr_mm.errors import UserError

from .gather import check_projections, gather_rows
from .precision import full_float32


def unnormalized_xent(
    z: Tensor, temperature: float, return_stats: bool = False
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """Cross entropy of plain dot products over every view in the job.

    ``nt_xent`` with s_ik = z_i . z_k / temperature instead of cosines, for studies: it
    holds the (Vn, VN) matrix of similarities, which ``nt_xent`` never does.

    Source: SimCLR, arXiv:2002.05709, Sec. 5.1 and Table 5, rows without L2 norm.

    Args:
        z: (n, V, d) projections, the V views of one image along axis 1, the same n on
            every rank. Any float dtype; computed in float32 (float64 stays float64).
        temperature: tau > 0, in the unit of the dot products; the paper tries 10 and
            100.
        return_stats: Also return what a training log wants to know.

    Returns:
        Scalar in nats, the mean over this rank's V*n anchors and their positives. With
        the gradient average of DistributedDataParallel it is the loss over all V*N
        anchors.

        With ``return_stats`` also detached scalars over this rank's anchors: ``top1``,
        the share that is closer to one of its positives than to any negative;
        ``pos_sim`` and ``neg_sim``, mean dot products with the positives and with the
        other images, not cosines; ``chance``, the loss when all rows are alike,
        ln(VN - 1).

    Raises:
        ValueError: z is not (n, V, d) with V >= 2, temperature <= 0, the job holds a
            single image, or ranks differ in the shape of z.
    """
    check_projections(z)
    if not 0 < temperature < math.inf:
        raise UserError(
            f'temperature must be > 0, got {temperature}: set '
            'model.head.temperature (the paper tries 10 and 100)'
        )
    n, num_views = z.shape[:2]
    with full_float32(z.device):
        own = z if z.dtype == torch.float64 else z.float()
        keys, first = gather_rows(own)  # (N, V, d)
        dots = own.flatten(0, 1) @ keys.flatten(0, 1).T  # (Vn, VN)
        anchor = (
            torch.arange(n * num_views, device=z.device)[:, None] + first * num_views
        )  # (Vn, 1)
        key = torch.arange(dots.shape[1], device=z.device)
        same = anchor // num_views == key // num_views  # (Vn, VN)
        positive = same & (anchor != key)
        pos = dots[positive].view(n * num_views, num_views - 1)
        others = dots.masked_fill(anchor == key, -torch.inf) / temperature
        loss = (others.logsumexp(1, keepdim=True) - pos / temperature).mean()
    if not return_stats:
        return loss
    with torch.no_grad():
        neg = dots[~same].view(n * num_views, -1)
        top1 = (pos.amax(1) > neg.amax(1)).to(dots.dtype).mean()
        chance = loss.new_full((), math.log(dots.shape[1] - 1))
    return loss, dict(top1=top1, pos_sim=pos.mean().detach(), neg_sim=neg.mean(), chance=chance)
