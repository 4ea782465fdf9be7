"""The paper's margin triplet loss.

Letters: b images in a block, n images on this rank, N images in the job, V views, d
projection width.
"""

import math

import torch
from torch import Tensor

from simclr_mm.errors import UserError

from .anchor_blocks import closest_semi_hard, mean_over_anchors


def margin_triplet(z: Tensor, margin: float, semi_hard: bool = False) -> Tensor:
    """Hinge loss: a positive must be nearer than a negative by a margin.

    With c the cosine similarity, m the margin, anchor i, p one of the other V - 1 views
    of its image, and k one of the K = (N - 1)V rows of all other images:

    - without mining: (1 / K) sum over k of max(c_ik - c_ip + m, 0);
    - ``semi_hard``: c_ik - c_ip + m for the one k with the largest c_ik between
      c_ip - m and c_ip, both excluded; 0 if there is none. Negatives at least as near
      as the positive do not count. Negatives beyond the margin have no loss.

    The mean is over the positives of an anchor and over anchors, also those with loss 0.

    Source: SimCLR, arXiv:2002.05709, Table 2 (its objective is this with the other
    sign), Sec. 5.1 and B.10.

    Args:
        z: (n, V, d) projections, as for :func:`~simclr_mm.losses.nt_xent`.
        margin: m >= 0 in cosine similarity, > 0 with ``semi_hard``. With m >= 2 every
            triplet has a loss. The paper tries 0, 0.4, 0.8 and 1.6 (B.10).
        semi_hard: Mine negatives, see above.

    Returns:
        Scalar in cosine similarity, the mean over this rank's V*n anchors. Several ranks
        and derivatives are handled as in ``nt_xent``.

    Raises:
        UserError: The margin is negative, not finite, 0 with ``semi_hard``, or requires a
            gradient, as training would only shrink it to 0. Or z is refused as in ``nt_xent``.

    Differs: the paper writes the loss of one triplet and does not weigh several; here
    they are averaged. The paper takes negatives from one of the two views and calls this
    slightly worse (B.10); here all rows are negatives.
    """
    return margin_triplet_with_stats(z, margin, semi_hard)[0]


def margin_triplet_with_stats(
    z: Tensor, margin: float, semi_hard: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """:func:`margin_triplet`, and the statistics of :func:`~.nt_xent.nt_xent_with_stats`.

    With ``semi_hard`` also ``mined``, the share of pairs (i, p) that have a semi-hard
    negative. ``chance`` is m, the loss if all similarities are 0.
    """
    if isinstance(margin, Tensor) and margin.requires_grad:
        raise UserError('a margin cannot be learned: set model.head.margin to a number')
    margin = float(margin)
    if not 0 <= margin < math.inf:
        raise UserError(
            f'margin must be >= 0 and finite, got {margin}: set '
            'model.head.margin (the paper tries 0, 0.4, 0.8 and 1.6)'
        )
    if semi_hard and margin == 0:
        raise UserError(
            'no negative is semi-hard for margin 0: set model.head.margin above 0, or '
            'model.head.semi_hard=False'
        )

    def terms(pos: Tensor, neg: Tensor) -> tuple[Tensor, Tensor | None]:
        if semi_hard:
            chosen = closest_semi_hard(pos, neg, margin)  # (b, V, V-1)
            return (chosen - pos + margin).relu(), chosen.isfinite()
        gap = neg[:, :, None] - (pos - margin)[..., None]  # (b, V, V-1, NV)
        num_neg = neg.shape[2] - neg.shape[1]  # K; the anchor's image gives zeros
        return gap.relu().sum(-1) / num_neg, None  # (b, V, V-1)

    loss, stats = mean_over_anchors(z, terms)
    return loss, dict(stats, chance=torch.full_like(loss, margin).detach())
