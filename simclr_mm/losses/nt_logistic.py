"""NT-Logistic, the paper's normalised temperature-scaled logistic loss.

Letters: b images in a block, n images on this rank, N images in the job, V views, d
projection width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .anchor_blocks import closest_semi_hard, mean_over_anchors
from .inputs import check_temperature


def nt_logistic(z: Tensor, temperature: float | Tensor, semi_hard: bool = False) -> Tensor:
    """Logistic loss: classify every pair in the job as views of one image or of two.

    With s the cosine similarity over temperature, anchor i, p one of the other V - 1
    views of its image, and k one of the K = (N - 1)V rows of all other images:

    - without mining: -log sigmoid(s_ip) - (1 / K) sum over k of log sigmoid(-s_ik);
    - ``semi_hard``: -log sigmoid(s_ip) - log sigmoid(-s_ik) for the one k with the
      largest s_ik < s_ip. There is no margin. If every negative is at least as near as
      the positive, the second term is 0.

    The mean is over the positives of an anchor and over anchors.

    Source: SimCLR, arXiv:2002.05709, Table 2 (its objective is this with the other
    sign), Sec. 5.1 and B.10.

    Args:
        z: (n, V, d) projections, as for :func:`~simclr_mm.losses.nt_xent`.
        temperature: tau > 0, no unit. The paper tries 0.1, 0.2, 0.5 and 1 (B.10). A tensor
            gets its gradient; its value is read from the device.
        semi_hard: Mine negatives, see above.

    Returns:
        Scalar in nats, the mean over this rank's V*n anchors. Several ranks and
        derivatives are handled as in ``nt_xent``.

    Raises:
        UserError: temperature <= 0, or z is refused as in ``nt_xent``.

    Differs: the paper writes the loss of one negative and does not weigh several. Here
    they are averaged, so that the two terms weigh the same at every batch size. A sum
    would weigh the negatives K times the positive. The paper takes negatives from one of
    the two views and calls this slightly worse (B.10); here all rows are negatives.
    """
    return nt_logistic_with_stats(z, temperature, semi_hard)[0]


def nt_logistic_with_stats(
    z: Tensor, temperature: float | Tensor, semi_hard: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """:func:`nt_logistic`, and the statistics of :func:`~.nt_xent.nt_xent_with_stats`.

    With ``semi_hard`` also ``mined``, the share of pairs (i, p) that have a semi-hard
    negative. ``chance`` is 2 ln 2, the loss if all similarities are 0.
    """
    tau = check_temperature(temperature, 'tries 0.1, 0.2, 0.5 and 1')

    def terms(pos: Tensor, neg: Tensor) -> tuple[Tensor, Tensor | None]:
        pull = F.logsigmoid(pos / tau)  # (b, V, V-1)
        if semi_hard:
            chosen = closest_semi_hard(pos, neg)  # (b, V, V-1)
            return -pull - F.logsigmoid(chosen / -tau), chosen.isfinite()
        num_neg = neg.shape[2] - neg.shape[1]  # K; the anchor's image gives zeros
        push = F.logsigmoid(neg / -tau).sum(-1) / num_neg  # (b, V)
        return -pull - push[..., None], None

    loss, stats = mean_over_anchors(z, terms, temperature)
    return loss, dict(stats, chance=torch.full_like(loss, 2 * math.log(2)).detach())
