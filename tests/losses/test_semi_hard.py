import pytest
import torch

from simclr_mm.losses.anchor_blocks import closest_semi_hard


@pytest.mark.parametrize('margin', [0.05, 0.5, torch.inf])
def test_equals_brute_force(margin):
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(3, 4, 3, generator=generator)  # (b, V, V-1)
    neg = torch.rand(3, 4, 9, generator=generator)  # (b, V, K)
    neg[..., 4] = -torch.inf  # none
    chosen = closest_semi_hard(pos, neg, margin)
    for i in range(3):
        for v in range(4):
            for j, p in enumerate(pos[i, v].tolist()):
                candidates = [
                    k for k in neg[i, v].tolist() if k < p and p - k < margin and k > -torch.inf
                ]
                assert chosen[i, v, j] == max(candidates, default=-torch.inf)


@pytest.mark.parametrize('negative', [0.5, 0.25, 0.75])
def test_bounds_are_excluded(negative):
    """As near as the positive, as far as the margin, nearer than the positive."""
    pos, neg = torch.tensor([[[0.5]]]), torch.tensor([[[negative]]])
    assert closest_semi_hard(pos, neg, 0.25) == -torch.inf


def test_gradient_goes_to_the_chosen():
    neg = torch.tensor([[[0.1, 0.4, 0.6]]], requires_grad=True)
    chosen = closest_semi_hard(torch.tensor([[[0.5]]]), neg)
    assert torch.autograd.grad(chosen.sum(), neg)[0].tolist() == [[[0, 1, 0]]]
