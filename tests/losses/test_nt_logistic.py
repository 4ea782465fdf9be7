"""NT-Logistic against nested loops and the gradient of the paper's Table 2."""

import math

import pytest
import torch
from helpers.triples import naive, naive_gradient, projections

from simclr_mm.losses import nt_logistic, nt_logistic_with_stats


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def hardest_farther(positive, negatives):
    """The negatives that semi-hard mining keeps: one or none."""
    return sorted(k for k in negatives if k < positive)[-1:]


@pytest.mark.parametrize('num_views', [2, 3, 4])
@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_equals_nested_loops(num_views, temperature):

    def pair(positive, negatives):
        terms = [
            math.log(sigmoid(positive / temperature)) + math.log(sigmoid(-negative / temperature))
            for negative in negatives
        ]
        return -sum(terms) / len(terms), True

    z = projections(6, num_views)
    loss, stats = nt_logistic_with_stats(z, temperature)
    value, expected = naive(z, pair)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    assert set(stats) == {'top1', 'pos_sim', 'neg_sim', 'chance'}
    for name in set(stats) - {'chance'}:
        assert stats[name].item() == pytest.approx(expected[name], rel=1e-12)
    assert nt_logistic(z, temperature).equal(loss)


@pytest.mark.parametrize('num_views', [2, 3])
@pytest.mark.parametrize('n', [2, 6])
def test_semi_hard_equals_nested_loops(n, num_views):

    def pair(positive, negatives):
        loss = -math.log(sigmoid(positive / 0.2))
        for negative in hardest_farther(positive, negatives):
            return loss - math.log(sigmoid(-negative / 0.2)), True
        return loss, False

    z = projections(n, num_views, d=3)
    loss, stats = nt_logistic_with_stats(z, 0.2, semi_hard=True)
    value, expected = naive(z, pair)
    if n == 2:
        assert 0 < expected['mined'] < 1  # some have none
    assert loss.item() == pytest.approx(value, rel=1e-12)
    for name in expected:
        assert stats[name].item() == pytest.approx(expected[name], rel=1e-12)


@pytest.mark.parametrize('num_views', [2, 3])
def test_gradient_is_the_papers(num_views):
    """Table 2: sigma(-u.v+ / tau) / tau v+ - sigma(u.v- / tau) / tau v-, to ascend."""
    tau = 0.3

    def weights(positive, negatives):
        push = [sigmoid(k / tau) / tau / len(negatives) for k in negatives]
        return -sigmoid(-positive / tau) / tau, push

    z = projections(4, num_views).requires_grad_()
    (gradient,) = torch.autograd.grad(nt_logistic(z, tau), z)
    torch.testing.assert_close(gradient, naive_gradient(z, weights), rtol=1e-11, atol=0)


def test_semi_hard_gradient_is_the_papers_on_the_mined():
    tau = 0.3

    def weights(positive, negatives):
        mined = hardest_farther(positive, negatives)
        push = [sigmoid(k / tau) / tau * (k in mined) for k in negatives]
        return -sigmoid(-positive / tau) / tau, push

    z = projections(4, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(nt_logistic(z, tau, semi_hard=True), z)
    torch.testing.assert_close(gradient, naive_gradient(z, weights), rtol=1e-11, atol=0)


def test_no_negative_is_farther():
    """Views of an image are opposite: each anchor is only pulled to its positive."""
    z = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]]).double()
    loss, stats = nt_logistic_with_stats(z, 0.5, semi_hard=True)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(2)))
    assert stats['mined'] == 0


def test_orthogonal_rows_are_at_chance():
    z = torch.eye(6).view(3, 2, 6)
    loss, stats = nt_logistic_with_stats(z, 0.1)
    assert loss.item() == stats['chance'].item() == pytest.approx(2 * math.log(2))


def test_pull_and_push_survive_float32_near_convergence():
    """exp(-20) of pull beside a push of the same size."""
    z = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[-1.0, 0.0], [-1.0, 0.0]]])
    assert nt_logistic(z, 0.05).item() == pytest.approx(
        2 * math.log1p(math.exp(-20)), rel=1e-6, abs=0
    )
