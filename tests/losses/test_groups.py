"""Groups of images in NT-Xent, against nested loops and real gloo processes."""

import math
from collections import Counter
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from helpers.dense import dense
from helpers.processes import run_ranks
from helpers.triples import naive_xent, projections
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_mm.errors import UserError
from simclr_mm.losses import nt_xent, nt_xent_with_stats, similarities

few = settings(max_examples=40, deadline=None, derandomize=True)


def named(groups):
    """A name for each image: a negative number is a group of its own."""
    return [('alone', i) if number < 0 else number for i, number in enumerate(groups)]


@few
@given(
    groups=st.lists(st.integers(-3, 4), min_size=2, max_size=12).filter(
        lambda groups: len(set(named(groups))) > 1
    ),
    num_views=st.integers(2, 4),
    side=st.integers(1, 30),
    kept=st.integers(0, 40),
    temperature=st.floats(0.05, 2),
    name=st.sampled_from(['nt_xent', 'avg']),
)
def test_any_groups_and_tiles_give_the_dense_loss(groups, num_views, side, kept, temperature, name):
    z = projections(len(groups), num_views, 6).requires_grad_()
    t = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    pairs = 'separate' if name == 'avg' else 'all'
    with patch.dict(similarities._SIDE, cpu=side), patch.dict(similarities._KEPT, cpu=kept):
        loss = nt_xent(z, t, pairs, groups=torch.tensor(groups))
        gradients = torch.autograd.grad(loss, (z, t))
    right = dense(name, z, t, named(groups))
    assert loss.item() == pytest.approx(right.item(), rel=1e-11)
    expected = torch.autograd.grad(right, (z, t))
    torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-11)


GROUPS = [7, 7, -1, 3, 7, -1, 3, 2**62]


@pytest.mark.parametrize('pairs', ['all', 'separate'])
@pytest.mark.parametrize('kept', [0, 100])
@pytest.mark.parametrize('num_views', [2, 3])
def test_statistics(num_views, kept, pairs):
    z = projections(8, num_views)
    with patch.dict(similarities._KEPT, cpu=kept), patch.dict(similarities._SIDE, cpu=5):
        loss, stats = nt_xent_with_stats(z, 0.2, pairs, torch.tensor(GROUPS))
    value, expected = naive_xent(z, 0.2, pairs, named(GROUPS))
    found = {name: number.item() for name, number in stats.items()}
    assert (loss.item(), found) == (pytest.approx(value), pytest.approx(expected, rel=1e-12))
    assert nt_xent(z, 0.2, pairs, torch.tensor(GROUPS)).item() == pytest.approx(loss.item())


def test_equal_rows_are_at_chance():
    loss, stats = nt_xent_with_stats(torch.ones(8, 2, 4), 0.1, groups=torch.tensor(GROUPS))
    sizes = Counter(named(GROUPS))
    chances = [math.log(2 * (8 - sizes[name]) + 1) for name in named(GROUPS)]
    assert loss.item() == pytest.approx(sum(chances) / 8)
    assert stats['chance'].item() == pytest.approx(sum(chances) / 8)
    assert stats['top1'] == 0


def test_groups_of_one_image_are_no_groups():
    z = projections(6, 2).requires_grad_()
    losses = [nt_xent(z, 0.2), nt_xent(z, 0.2, groups=torch.full((6,), -1))]
    assert losses[0].equal(losses[1])
    gradients = [torch.autograd.grad(loss, z)[0] for loss in losses]
    assert gradients[0].equal(gradients[1])


@pytest.mark.parametrize(
    'groups, match',
    [
        (torch.zeros(4), r'int64 \(4,\), got torch.float32'),
        (torch.tensor([1, 2, 3]), r'got torch.int64 \(3,\)'),
        ([1, 2, 3, 4], r'got \[1, 2, 3, 4\]'),
        (torch.tensor([5, 5, 5, 5]), 'all images of a batch are of one group'),
    ],
)
def test_what_are_no_groups(groups, match):
    with pytest.raises(UserError, match=match):
        nt_xent(projections(4, 2), 0.1, groups=groups)


# A group on all ranks, one on two of them, and a rank whose images are all of one group.
ACROSS = [1, 1, 1, 1, 5, -1, 1, -4, 6, 5, 8, 8]


def _share(rank, world_size):
    z = projections(12, 2, 7).chunk(world_size)[rank].requires_grad_()
    loss, stats = nt_xent_with_stats(z, 0.2, groups=torch.tensor(ACROSS).chunk(world_size)[rank])
    loss.backward()
    return loss.item(), z.grad, {name: value.item() for name, value in stats.items()}


def _process(rank, folder):
    torch.set_num_threads(1)
    similarities._SIDE['cpu'] = 4
    results = {}
    for world_size in range(max(2, rank + 1), 4):
        dist.init_process_group(
            'gloo', f'file://{folder}/rendezvous{world_size}', rank=rank, world_size=world_size
        )
        results[world_size] = _share(rank, world_size)
        dist.destroy_process_group()
    torch.save(results, folder / f'rank{rank}.pth')


def test_processes_equal_one(tmp_path):
    run_ranks(_process, 3, tmp_path)
    ranks = [torch.load(tmp_path / f'rank{rank}.pth') for rank in range(3)]
    z = projections(12, 2, 7).requires_grad_()
    right = dense('nt_xent', z, 0.2, named(ACROSS))
    right.backward()
    stats = nt_xent_with_stats(z, 0.2, groups=torch.tensor(ACROSS))[1]
    for world_size in (2, 3):
        losses, gradients, logged = zip(*(rank[world_size] for rank in ranks[:world_size]))
        assert sum(losses) / world_size == pytest.approx(right.item(), rel=1e-12)
        # Each rank's loss is the mean over its own anchors.
        gradient = torch.cat(gradients) / world_size
        assert (gradient - z.grad).norm() <= 1e-10 * z.grad.norm()
        for name in ('top1', 'pos_sim', 'chance'):  # neg_sim is a mean over pairs
            mean = sum(each[name] for each in logged) / world_size
            assert mean == pytest.approx(stats[name].item(), rel=1e-12)
