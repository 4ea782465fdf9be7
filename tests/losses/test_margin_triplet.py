"""Margin triplet against nested loops and the gradient of the paper's Table 2."""

import math

import pytest
import torch
from helpers.triples import naive, naive_gradient, projections

from simclr_mm.losses import margin_triplet, margin_triplet_with_stats


def semi_hard(positive, negatives, margin):
    """The negatives that semi-hard mining keeps: one or none."""
    return sorted(k for k in negatives if positive - margin < k < positive)[-1:]


@pytest.mark.parametrize('num_views', [2, 3, 4])
@pytest.mark.parametrize('margin', [0, 0.4, 1.6])
def test_equals_nested_loops(num_views, margin):

    def pair(positive, negatives):
        terms = [max(k - positive + margin, 0) for k in negatives]
        return sum(terms) / len(terms), True

    z = projections(6, num_views)
    loss, stats = margin_triplet_with_stats(z, margin)
    value, expected = naive(z, pair)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    assert set(stats) == {'top1', 'pos_sim', 'neg_sim', 'chance'}
    for name in set(stats) - {'chance'}:
        assert stats[name].item() == pytest.approx(expected[name], rel=1e-12)
    assert margin_triplet(z, margin).equal(loss)


@pytest.mark.parametrize('num_views', [2, 3])
@pytest.mark.parametrize('margin', [0.1, 0.8])
def test_semi_hard_equals_nested_loops(margin, num_views):

    def pair(positive, negatives):
        for k in semi_hard(positive, negatives, margin):
            return k - positive + margin, True
        return 0, False

    z = projections(6, num_views, d=3)
    loss, stats = margin_triplet_with_stats(z, margin, semi_hard=True)
    value, expected = naive(z, pair)
    assert 0 < expected['mined'] < 1  # some have none
    assert loss.item() == pytest.approx(value, rel=1e-12)
    for name in expected:
        assert stats[name].item() == pytest.approx(expected[name], rel=1e-12)


@pytest.mark.parametrize('num_views', [2, 3])
def test_gradient_is_the_papers(num_views):
    """Table 2: v+ - v- if u.v+ - u.v- < m, else 0, to ascend."""
    margin = 0.4

    def weights(positive, negatives):
        push = [(positive - k < margin) / len(negatives) for k in negatives]
        return -sum(push), push

    z = projections(4, num_views).requires_grad_()
    (gradient,) = torch.autograd.grad(margin_triplet(z, margin), z)
    torch.testing.assert_close(gradient, naive_gradient(z, weights), rtol=1e-11, atol=0)


def test_semi_hard_gradient_is_the_papers_on_the_mined():
    margin = 0.4

    def weights(positive, negatives):
        mined = semi_hard(positive, negatives, margin)
        return -len(mined), [k in mined for k in negatives]

    z = projections(4, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(margin_triplet(z, margin, semi_hard=True), z)
    torch.testing.assert_close(gradient, naive_gradient(z, weights), rtol=1e-11, atol=0)


def test_hard_and_easy_negatives_are_not_semi_hard():
    """An anchor at 0 degrees, its positive at 60, a negative at 30, one at 180."""
    degrees = torch.tensor([[0.0, 60.0], [30.0, 180.0]], dtype=torch.float64)
    z = torch.stack((degrees.deg2rad().cos(), degrees.deg2rad().sin()), -1)
    loss, stats = margin_triplet_with_stats(z, 0.7, semi_hard=True)
    # Anchors 0 and 60 see 0.87 and -1 or 0.87 and -0.5, with 0.5 for the positive;
    # anchor 30 sees 0.87 twice with -0.87; only 180 has one: -1 with -0.87.
    assert stats['mined'] == 0.25
    assert loss.item() == pytest.approx((-1 + math.sqrt(3) / 2 + 0.7) / 4)


def test_orthogonal_rows_are_at_chance():
    z = torch.eye(6).view(3, 2, 6)
    loss, stats = margin_triplet_with_stats(z, 0.4)
    assert loss.item() == stats['chance'].item() == pytest.approx(0.4)


@pytest.mark.parametrize(
    'margin, mines, match',
    [
        (-0.1, False, 'model.head.margin'),
        (math.nan, False, 'model.head.margin'),
        (math.inf, True, 'model.head.margin'),
        (0, True, 'model.head.semi_hard'),
    ],
)
def test_errors_name_the_key(margin, mines, match):
    with pytest.raises(ValueError, match=match):
        margin_triplet(torch.ones(4, 2, 8), margin, mines)
