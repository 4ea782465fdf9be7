"""NT-Xent of dot products against nested loops."""

import math

import pytest
import torch
from helpers.triples import projections

from simclr_mm.losses import nt_xent, unnormalized, unnormalized_xent, unnormalized_xent_with_stats


def naive(z, temperature):
    """Mean over anchors and positives, and the statistics, in Python floats."""
    rows = {(i, v): row for i, image in enumerate(z.tolist()) for v, row in enumerate(image)}

    def dot(a, b):
        return sum(x * y for x, y in zip(rows[a], rows[b]))

    losses, hits, pos_sims, neg_sims = [], [], [], []
    for a in rows:
        others = [k for k in rows if k != a]
        positives = [k for k in others if k[0] == a[0]]
        total = math.log(sum(math.exp(dot(a, k) / temperature) for k in others))
        losses += [total - dot(a, p) / temperature for p in positives]
        negatives = [dot(a, k) for k in others if k[0] != a[0]]
        hits.append(max(dot(a, p) for p in positives) > max(negatives))
        pos_sims += [dot(a, p) for p in positives]
        neg_sims += negatives
    means = [sum(some) / len(some) for some in (losses, hits, pos_sims, neg_sims)]
    return means[0], dict(zip(('top1', 'pos_sim', 'neg_sim'), means[1:]))


@pytest.mark.parametrize('num_views', [2, 3])
@pytest.mark.parametrize('temperature', [1, 10])
def test_equals_nested_loops(num_views, temperature):
    z = projections(5, num_views)
    loss, stats = unnormalized_xent_with_stats(z, temperature)
    value, expected = naive(z, temperature)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    assert 0 < expected['top1'] < 1
    assert stats.pop('chance').item() == pytest.approx(math.log(5 * num_views - 1))
    assert {name: number.item() for name, number in stats.items()} == pytest.approx(
        expected, rel=1e-12
    )
    assert unnormalized_xent(z, temperature).equal(loss)


def test_rows_of_length_one_are_nt_xent():
    z = torch.nn.functional.normalize(projections(6, 2), dim=-1).requires_grad_()
    loss = unnormalized_xent(z, 0.5)
    assert loss.item() == pytest.approx(nt_xent(z, 0.5).item(), rel=1e-12)


def test_gradient():
    z = projections(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: unnormalized_xent(z, 10), z)


def test_two_ranks_are_one(monkeypatch):
    """Each rank sees all rows, and its own begin at its place among them."""
    z = projections(6, 2)
    whole = unnormalized_xent(z, 10).item()
    halves = []
    for first in (0, 3):
        monkeypatch.setattr(unnormalized, 'gather_rows', lambda rows, first=first: (z, first))
        halves.append(unnormalized_xent(z[first : first + 3], 10).item())
    assert halves[0] != halves[1]
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-12)


def test_half_precision_is_computed_in_float32():
    z = projections(4, 2, dtype=torch.bfloat16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert unnormalized_xent(z, 10).equal(unnormalized_xent(z.float(), 10))


@pytest.mark.parametrize(
    'z, temperature, message',
    [
        (torch.ones(4, 5), 10, r'\(n, V, d\)'),
        (torch.ones(1, 2, 5), 10, 'no negatives'),
        (torch.ones(4, 2, 5), 0, 'model.head.temperature'),
        (torch.ones(4, 2, 5), math.inf, 'model.head.temperature'),
    ],
)
def test_bad_input(z, temperature, message):
    with pytest.raises(ValueError, match=message):
        unnormalized_xent(z, temperature)
