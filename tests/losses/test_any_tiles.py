"""Tiles and blocks of any size give the dense loss, and every pair is met once."""

from unittest.mock import patch

import pytest
import torch
from helpers.dense import dense
from helpers.triples import naive_xent, projections
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_mm.losses import anchor_blocks, nt_logistic, nt_xent_with_stats, similarities

few = settings(max_examples=25, deadline=None, derandomize=True)


@few
@given(
    n=st.integers(2, 12),
    num_views=st.integers(2, 5),
    d=st.integers(1, 7),
    side=st.integers(1, 30),
    kept=st.integers(0, 40),
    temperature=st.floats(0.05, 2),
    name=st.sampled_from(['nt_xent', 'avg', 'nt_logistic', 'mined']),
)
def test_any_tiles_give_the_dense_loss(n, num_views, d, side, kept, temperature, name):
    z = projections(n, num_views, d).requires_grad_()
    t = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    with (
        patch.dict(similarities._SIDE, cpu=side),
        patch.dict(similarities._KEPT, cpu=kept),
        patch.object(anchor_blocks, '_BLOCK', side),
    ):
        if name in ('nt_xent', 'avg'):
            pairs = 'separate' if name == 'avg' else 'all'
            loss, stats = nt_xent_with_stats(z, t, pairs)
            expected = naive_xent(z, temperature, pairs)[1]
            for key in {*stats} - {'top1'} if d == 1 else stats:  # equal but for rounding
                assert stats[key].item() == pytest.approx(expected[key], rel=1e-11, abs=1e-14)
        else:
            loss = nt_logistic(z, t, semi_hard=name == 'mined')
        gradients = torch.autograd.grad(loss, (z, t))
    right = dense(name, z, t)
    assert loss.item() == pytest.approx(right.item(), rel=1e-11)
    if name == 'mined' and d == 1:
        return  # all cosines are 1 or -1, and rounding decides which is farther
    expected = torch.autograd.grad(right, (z, t))
    torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-11)


@few
@given(
    ranks=st.integers(1, 9),
    images=st.integers(1, 12),
    num_views=st.integers(2, 5),
    side=st.integers(1, 30),
)
def test_any_tiles_cover_every_pair_once(ranks, images, num_views, side):
    """On all ranks together. No rank computes more than a fair share."""
    m = images * num_views
    rows = ranks * m
    covered = torch.zeros(rows, rows, dtype=torch.int64)
    for rank in range(ranks):
        sizes, pairs = similarities.tiles(rank, ranks, m, side, num_views)
        ends = torch.tensor(sizes).cumsum(0)
        spans = [slice(end - size, end) for size, end in zip(sizes, ends)]
        assert sum(sizes) == rows and max(sizes) < side + num_views
        assert all(size % num_views == 0 for size in sizes)
        # Half of the matrix by W, the other half of diagonal tiles, and one image where
        # two ranks cannot halve what they share.
        entries = sum(sizes[i] * sizes[j] for i, j in pairs)
        assert entries <= rows**2 / (2 * ranks) + m * max(sizes) / 2 + m * num_views
        for i, j in pairs:
            covered[spans[i], spans[j]] += 1
            if i != j:
                covered[spans[j], spans[i]] += 1
    assert (covered == 1).all()
