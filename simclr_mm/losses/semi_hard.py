import torch
from torch import Tensor


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
