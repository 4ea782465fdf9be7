"""Anchors, positives and negatives in Python floats, for tests of objectives."""

import math

import torch


def projections(n, num_views, d=5, seed=0, dtype=torch.float64):
    """Views that resemble each other, of any length."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(n, 1, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, num_views, d, generator=generator, dtype=torch.float64)
    return (2 * (image + noise)).to(dtype)


def walk(z, groups=None, unit=True):
    """Yields anchor, positives, negatives as (image, view), and their similarity.

    It is the cosine, or the dot product if not ``unit``. Images of one group are no negatives.
    """
    rows = {}
    for i, image in enumerate(z.detach().double().tolist()):
        for v, row in enumerate(image):
            length = math.sqrt(sum(x * x for x in row)) if unit else 1
            rows[i, v] = [x / length for x in row]
    groups = groups or range(len(z))

    def similarity(a, b):
        return sum(x * y for x, y in zip(rows[a], rows[b]))

    for a in rows:
        positives = [k for k in rows if k[0] == a[0] and k != a]
        yield a, positives, [k for k in rows if groups[k[0]] != groups[a[0]]], similarity


def mean(values):
    return sum(values) / len(values)


def naive(z, pair, groups=None, unit=True):
    """Mean of ``pair(similarity to p, similarities to negatives)`` and the statistics.

    ``pair`` returns a loss and whether a negative was mined.
    """
    losses, mined, hits, pos_sims, neg_sims = [], [], [], [], []
    for a, positives, negatives, similarity in walk(z, groups, unit):
        others = [similarity(a, k) for k in negatives]
        for p in positives:
            loss, found = pair(similarity(a, p), others)
            losses.append(loss)
            mined.append(found)
            pos_sims.append(similarity(a, p))
        neg_sims += others
        hits.append(max(similarity(a, p) for p in positives) > max(others))
    return mean(losses), dict(
        top1=mean(hits), pos_sim=mean(pos_sims), neg_sim=mean(neg_sims), mined=mean(mined)
    )


def naive_xent(z, temperature, pairs='all', groups=None, unit=True):
    """Eq. (1), over all positives or over pairs of views, and the statistics."""
    if pairs == 'separate' and z.shape[1] > 2:
        views = [(v, p) for p in range(z.shape[1]) for v in range(p)]
        losses, stats = zip(
            *(naive_xent(z[:, [*two]], temperature, 'all', groups) for two in views)
        )
        return mean(losses), {name: mean([each[name] for each in stats]) for name in stats[0]}
    losses, chances = [], []
    for a, positives, negatives, similarity in walk(z, groups, unit):
        keys = positives + negatives
        total = sum(math.exp(similarity(a, k) / temperature) for k in keys)
        losses += [math.log(total) - similarity(a, p) / temperature for p in positives]
        chances.append(math.log(len(keys)))
    stats = naive(z, lambda *_: (0, 0), groups, unit)[1]
    del stats['mined']
    return mean(losses), dict(stats, chance=mean(chances))


def naive_gradient(z, weights):
    """Gradient of the mean loss from those of the cosines, (n, V, d).

    ``weights(cosine to p, cosines to negatives)`` returns d loss / d cosine to p and
    the list of d loss / d cosine to k.
    """
    z = z.detach().double()
    lengths = z.norm(dim=-1, keepdim=True)
    units = z / lengths
    grad, count = torch.zeros_like(z), 0
    for a, positives, negatives, cosine in walk(z):
        for p in positives:
            on_p, on_k = weights(cosine(a, p), [cosine(a, k) for k in negatives])
            for k, weight in [(p, on_p), *zip(negatives, on_k)]:
                grad[a] += weight * units[k]
                grad[k] += weight * units[a]
            count += 1
    along = (grad * units).sum(-1, keepdim=True)
    return (grad - along * units) / lengths / count
