"""NT-Xent without the L2 norm, for the paper's Table 5.

Letters: n images on this rank, N images in the job, V views, d projection width.
"""

import math
from typing import Any

import torch
from torch import Tensor

from .gather import gather_rows
from .inputs import check_projections, check_temperature
from .precision import full_float32


def unnormalized_xent(z: Tensor, temperature: float | Tensor) -> Tensor:
    """Cross entropy of plain dot products over every view in the job.

    It is ``nt_xent`` with s_ik = z_i . z_k / temperature instead of cosines. It holds the
    (Vn, VN) matrix of similarities, so use it for studies.

    Source: SimCLR, arXiv:2002.05709, Sec. 5.1 and Table 5, rows without L2 norm.

    Args:
        z: (n, V, d) projections, as for :func:`~simclr_mm.losses.nt_xent`, but their lengths count.
        temperature: tau > 0, in the unit of the dot products. The paper tries 10 and
            100. A tensor gets its gradient.

    Returns:
        Scalar in nats, the mean over this rank's V*n anchors and their positives. Several
        ranks are handled as in ``nt_xent``.

    Raises:
        UserError: temperature <= 0, or z is refused as in ``nt_xent``.
    """
    return unnormalized_xent_with_stats(z, temperature)[0]


def unnormalized_xent_with_stats(
    z: Tensor, temperature: float | Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """:func:`unnormalized_xent`, and the statistics of :func:`~.nt_xent.nt_xent_with_stats`.

    They are of dot products instead of cosines.
    """
    check_projections(z)
    check_temperature(temperature, 'tries 10 and 100')
    n, num_views = z.shape[:2]
    with full_float32(z.device):
        own = z if z.dtype == torch.float64 else z.float()
        keys, first = gather_rows(own)  # (N, V, d)
        dots = _Products.apply(own.flatten(0, 1), keys.flatten(0, 1))  # (Vn, VN)
        key = torch.arange(dots.shape[1], device=z.device)
        anchor = key.narrow(0, first * num_views, n * num_views)[:, None]  # (Vn, 1)
        same = anchor // num_views == key // num_views  # (Vn, VN)
        # Computed indices: finding them with nonzero would wait for the device.
        steps = torch.arange(1, num_views, device=z.device)
        partner = anchor // num_views * num_views + (anchor + steps) % num_views  # (Vn, V-1)
        pos = dots.gather(1, partner)  # (Vn, V-1)
        others = (dots / temperature).masked_fill(anchor == key, -torch.inf)
        loss = (others.logsumexp(1, keepdim=True) - pos / temperature).mean()
    with torch.no_grad():
        neg = dots.masked_fill(same, -torch.inf).amax(1)  # (Vn)
        top1 = (pos.amax(1) > neg).to(dots.dtype).mean()
        neg_sim = dots.masked_fill(same, 0).sum() / (len(dots) * (dots.shape[1] - num_views))
        chance = loss.new_full((), math.log(dots.shape[1] - 1))
    return loss, dict(top1=top1, pos_sim=pos.mean().detach(), neg_sim=neg_sim, chance=chance)


class _Products(torch.autograd.Function):
    """Dot products of rows, whose gradient is computed in full float32 too."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, keys: Tensor) -> Tensor:
        ctx.save_for_backward(rows, keys)
        return rows @ keys.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        rows, keys = ctx.saved_tensors
        with full_float32(gradient.device):
            return gradient @ keys, gradient.T @ rows
