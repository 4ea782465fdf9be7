"""What all objectives over triples share: blocks, precision, processes."""

from functools import partial

import pytest
import torch
import torch.distributed as dist
from helpers.processes import run_ranks
from helpers.triples import projections
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from simclr_mm.losses import (
    anchor_blocks,
    margin_triplet_with_stats,
    nt_logistic,
    nt_logistic_with_stats,
)

OBJECTIVES = dict(
    logistic=partial(nt_logistic_with_stats, temperature=0.2),
    logistic_mined=partial(nt_logistic_with_stats, temperature=0.2, semi_hard=True),
    triplet=partial(margin_triplet_with_stats, margin=0.4),
    triplet_mined=partial(margin_triplet_with_stats, margin=0.4, semi_hard=True),
)

each_objective = pytest.mark.parametrize('objective', OBJECTIVES.values(), ids=OBJECTIVES.keys())


@each_objective
@pytest.mark.parametrize('num_views', [2, 3])
@pytest.mark.parametrize('pairs', [1, 12, 13, 40])
def test_blocks_change_nothing(objective, num_views, pairs, monkeypatch):
    z = projections(9, num_views).requires_grad_()
    loss, stats = objective(z)
    (gradient,) = torch.autograd.grad(loss, z)
    monkeypatch.setattr(anchor_blocks, '_BLOCK', pairs)
    in_blocks, stats_in_blocks = objective(z)
    assert in_blocks.item() == pytest.approx(loss.item(), rel=1e-13)
    torch.testing.assert_close(stats_in_blocks, stats)
    torch.testing.assert_close(torch.autograd.grad(in_blocks, z)[0], gradient)


class LargestTensor(TorchDispatchMode):
    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.numel())
        return out


@each_objective
@pytest.mark.parametrize('num_views', [2, 3])
def test_no_tensor_is_larger_than_a_block(objective, num_views):
    z = projections(300, num_views, 4).requires_grad_()
    with LargestTensor() as largest:
        objective(z)[0].backward()
    assert largest.entries <= anchor_blocks._BLOCK * 300 * num_views


def test_without_gradient():
    z = projections(4, 2)
    assert not nt_logistic(z, 0.2).requires_grad
    with torch.no_grad():
        assert nt_logistic(z.requires_grad_(), 0.2).equal(nt_logistic(z, 0.2))


def test_collapse_is_no_hit():
    """Rows that are alike but for rounding do not count as found."""
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(32, generator=generator)
    z = row * torch.rand(2, 8, 1, generator=generator).add(0.5)
    assert nt_logistic_with_stats(z, 0.1)[1]['top1'] == 0


CASES = [(name, num_views) for name in OBJECTIVES for num_views in (2, 3)]
IMAGES = 8


def _network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(7, 12), nn.GroupNorm(3, 12), nn.Tanh(), nn.Linear(12, 5)
    ).double()


def _loss(network, inputs, name):
    n, num_views = inputs.shape[:2]
    z = network(inputs.flatten(0, 1)).view(n, num_views, -1)
    return OBJECTIVES[name](z)


def _process(rank, folder):
    """Losses, statistics and averaged gradients of this rank's half of the images."""
    torch.set_num_threads(1)
    anchor_blocks._BLOCK = 6  # several blocks, the last one smaller
    dist.init_process_group('gloo', f'file://{folder}/rendezvous', rank=rank, world_size=2)
    results = []
    for name, num_views in CASES:
        network = nn.parallel.DistributedDataParallel(_network())
        share = projections(IMAGES, num_views, 7).chunk(2)[rank]
        loss, stats = _loss(network, share, name)
        loss.backward()
        results.append((loss.item(), stats, [p.grad for p in network.parameters()]))
    with pytest.raises(ValueError, match='batch_size'):
        nt_logistic(projections(2 + rank, 2), 0.2)
    torch.save(results, folder / f'rank{rank}.pth')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    run_ranks(_process, 2, folder)
    return list(zip(*(torch.load(folder / f'rank{rank}.pth') for rank in range(2))))


@pytest.mark.parametrize('case', range(len(CASES)), ids=map(str, CASES))
def test_two_processes_equal_one(case, two_ranks):
    name, num_views = CASES[case]
    network = _network()
    loss, stats = _loss(network, projections(IMAGES, num_views, 7), name)
    loss.backward()
    values, statistics, gradients = zip(*two_ranks[case])
    assert sum(values) / 2 == pytest.approx(loss.item(), rel=1e-12)
    for key in stats:
        mean = sum(numbers[key] for numbers in statistics) / 2
        assert mean.item() == pytest.approx(stats[key].item(), rel=1e-12)
    for rank in gradients:
        for gradient, p in zip(rank, network.parameters()):
            assert (gradient - p.grad).norm() <= 1e-10 * p.grad.norm()
