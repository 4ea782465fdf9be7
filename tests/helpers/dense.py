"""Every loss from the whole matrix of similarities, in float64, by autograd."""

import math

import torch


def dense(name, z, t, groups=None):
    """The loss by autograd in float64, from the whole matrix of similarities.

    ``groups``, a list with a name for each image, are for 'nt_xent' and 'avg'.
    """
    n, num_views = z.shape[:2]
    if name == 'avg' and num_views > 2:
        pairs = [(v, p) for v in range(num_views) for p in range(v)]
        return sum(dense(name, z[:, list(pair)], t, groups) for pair in pairs) / len(pairs)
    rows = z.double().flatten(0, 1)
    if name != 'unnormalized':
        lengths = rows.norm(dim=1, keepdim=True)
        rows = torch.where(lengths > 0, rows / lengths.where(lengths > 0, torch.ones(())), 0)
    sims = rows @ rows.T
    image = torch.arange(len(rows)) // num_views
    same = image[:, None] == image
    itself = torch.eye(len(rows), dtype=torch.bool)
    pos = sims[same & ~itself].view(len(rows), num_views - 1)
    neg = sims[~same].view(len(rows), -1)
    # Closest of the farther ones, or nothing.
    lowest = pos[..., None] - (t if name == 'triplet_mined' else math.inf)
    farther = (neg[:, None] < pos[..., None]) & (neg[:, None] > lowest)
    closest = neg[:, None].where(farther, -torch.inf).amax(-1)
    found = closest.isfinite()
    closest = closest.where(found, torch.zeros(()))
    if name == 'nt_logistic':
        push = (-neg / t).sigmoid().log().mean(1, keepdim=True)
        return -((pos / t).sigmoid().log() + push).mean()
    if name == 'mined':
        push = (-closest / t).sigmoid().log().where(found, torch.zeros(()))
        return -((pos / t).sigmoid().log() + push).mean()
    if name == 'triplet':
        return (neg[:, None] - pos[..., None] + t).relu().mean()
    if name == 'triplet_mined':
        return (closest - pos + t).relu().where(found, torch.zeros(())).mean()
    if groups is not None:
        for i in range(len(rows)):
            for k in range(len(rows)):
                of, other = i // num_views, k // num_views
                itself[i, k] |= of != other and groups[of] == groups[other]
    total = (sims / t).masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    return (total - pos / t).mean()
