"""Anchors, positives and negatives in Python floats, for tests of objectives."""

import math

import torch


def projections(n, num_views, d=5, seed=0, dtype=torch.float64):
    """Views that resemble each other, of any length."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(n, 1, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, num_views, d, generator=generator, dtype=torch.float64)
    return (2 * (image + noise)).to(dtype)


def walk(z):
    """Yields anchor, positives, negatives as (image, view), and their cosine."""
    z = z.detach().double().tolist()
    units = {}
    for i, image in enumerate(z):
        for v, row in enumerate(image):
            length = math.sqrt(sum(x * x for x in row))
            units[i, v] = [x / length for x in row]

    def cosine(a, b):
        return sum(x * y for x, y in zip(units[a], units[b]))

    for a in units:
        positives = [k for k in units if k[0] == a[0] and k != a]
        yield a, positives, [k for k in units if k[0] != a[0]], cosine


def naive(z, pair):
    """Mean of ``pair(cosine to p, cosines to negatives)`` and the statistics.

    ``pair`` returns a loss and whether a negative was mined.
    """
    losses, mined, hits, pos_sims, neg_sims = [], [], [], [], []
    for a, positives, negatives, cosine in walk(z):
        others = [cosine(a, k) for k in negatives]
        for p in positives:
            loss, found = pair(cosine(a, p), others)
            losses.append(loss)
            mined.append(found)
            pos_sims.append(cosine(a, p))
        neg_sims += others
        hits.append(max(cosine(a, p) for p in positives) > max(others))

    def mean(values):
        return sum(values) / len(values)

    return mean(losses), dict(
        top1=mean(hits), pos_sim=mean(pos_sims), neg_sim=mean(neg_sims), mined=mean(mined)
    )


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
