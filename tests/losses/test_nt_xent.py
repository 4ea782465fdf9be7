"""NT-Xent against nested loops, mmpretrain's code and real gloo processes."""
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from simclr_mm.losses import nt_xent

pytestmark = pytest.mark.portable


def loops(z, temperature, pairs='all'):
    """Eq. (1) in Python floats: the mean loss and the statistics."""
    if pairs == 'separate' and z.shape[1] > 2:
        two = [loops(z[:, [v, p]], temperature)
               for p in range(z.shape[1]) for v in range(p)]
        return (sum(value for value, _ in two) / len(two), {
            name: sum(stats[name] for _, stats in two) / len(two)
            for name in two[0][1]
        })
    z = z.double().tolist()
    rows = [(i, v) for i in range(len(z)) for v in range(len(z[0]))]

    def cosine(a, b):
        a, b = z[a[0]][a[1]], z[b[0]][b[1]]
        dot = sum(x * y for x, y in zip(a, b))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    losses, hits, pos_sims, neg_sims = [], [], [], []
    for a in rows:
        keys = [k for k in rows if k != a]
        positives = [k for k in keys if k[0] == a[0]]
        for p in positives:
            total = sum(math.exp(cosine(a, k) / temperature) for k in keys)
            losses.append(-math.log(math.exp(cosine(a, p) / temperature) / total))
            pos_sims.append(cosine(a, p))
        neg_sims += [cosine(a, k) for k in keys if k not in positives]
        hits.append(max(keys, key=lambda k: cosine(a, k)) in positives)

    def mean(values):
        return sum(values) / len(values)

    return mean(losses), dict(
        top1=mean(hits), pos_sim=mean(pos_sims), neg_sim=mean(neg_sims))


def projections(n, num_views, d=5, seed=0, dtype=torch.float64):
    """Views that resemble each other, of any length."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(n, 1, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, num_views, d, generator=generator, dtype=torch.float64)
    return (3 * (image + noise)).to(dtype)


@pytest.mark.parametrize('pairs', ['all', 'separate'])
@pytest.mark.parametrize('num_views', [2, 3, 4])
@pytest.mark.parametrize('temperature', [0.05, 0.1, 1.])
def test_equals_nested_loops(num_views, pairs, temperature):
    z = projections(6, num_views)
    loss, stats = nt_xent(z, temperature, return_stats=True, pairs=pairs)
    value, expected = loops(z, temperature, pairs)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    for name in expected:
        assert stats[name].item() == pytest.approx(expected[name], rel=1e-12)
    assert nt_xent(z, temperature, pairs=pairs).equal(loss)


def test_two_views_are_one_pair():
    z = projections(5, 2)
    assert nt_xent(z, 0.2).item() == pytest.approx(
        nt_xent(z, 0.2, pairs='separate').item(), rel=1e-14)


@pytest.mark.parametrize('pairs, rivals', [('all', 4 * 3 - 1), ('separate', 2 * 4 - 1)])
def test_equal_rows_are_at_chance(pairs, rivals):
    loss, stats = nt_xent(torch.ones(4, 3, 8), 0.1, True, pairs)
    assert stats['chance'].item() == pytest.approx(math.log(rivals))
    assert loss.item() == pytest.approx(math.log(rivals))


def test_statistics_are_detached():
    z = projections(4, 2).requires_grad_()
    loss, stats = nt_xent(z, 0.1, return_stats=True)
    assert loss.requires_grad
    assert set(stats) == {'top1', 'pos_sim', 'neg_sim', 'chance'}
    assert not any(value.requires_grad or value.ndim for value in stats.values())


@pytest.mark.parametrize('pairs', ['all', 'separate'])
@pytest.mark.parametrize('num_views', [2, 3])
def test_gradient(num_views, pairs):
    z = projections(4, num_views, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: nt_xent(z, 0.3, pairs=pairs), z)


@pytest.mark.parametrize('temperature, tolerance', [(0.5, 1e-5), (0.1, 1e-5),
                                                    (0.02, 1e-5), (0.01, 1e-4)])
def test_float32(temperature, tolerance):
    """Value to 1e-5; gradient by norm to 1e-5, to 1e-4 at very low temperatures."""
    z = projections(64, 2, 32, dtype=torch.float32).requires_grad_()
    z64 = z.detach().double().requires_grad_()
    loss, loss64 = nt_xent(z, temperature), nt_xent(z64, temperature)
    loss.backward()
    loss64.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss64.item(), rel=1e-5)
    assert (z.grad - z64.grad).norm() <= tolerance * z64.grad.norm()


def test_float32_near_convergence():
    """exp(-20) of loss survives beside similarities of 20."""
    z = torch.tensor([[[1., 0.], [1., 0.]], [[-1., 0.], [-1., 0.]]])
    expected = math.log1p(2 * math.exp(-2 / 0.1))
    assert nt_xent(z, 0.1).item() == pytest.approx(expected, rel=1e-5, abs=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    z = projections(16, 2, 32, dtype=torch.float32).requires_grad_()
    plain = nt_xent(z, 0.1)
    with torch.autocast('cpu', dtype):
        inside = nt_xent(z, 0.1)
    assert inside.dtype == torch.float32
    assert inside.equal(plain)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in (plain, inside)]
    assert gradients[0].equal(gradients[1])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype):
    z = projections(16, 2, 32, dtype=dtype).requires_grad_()
    z64 = z.detach().double().requires_grad_()
    loss, loss64 = nt_xent(z, 0.1), nt_xent(z64, 0.1)
    loss.backward()
    loss64.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss64.item(), rel=1e-5)
    # The gradient itself is rounded to the input's type.
    error = (z.grad.double() - z64.grad).norm() / z64.grad.norm()
    assert error < torch.finfo(dtype).eps


@pytest.mark.parametrize('z, kwargs, match', [
    (torch.ones(4, 8), dict(temperature=0.1), r'\(n, V, d\).*\(4, 8\)'),
    (torch.ones(4, 1, 8), dict(temperature=0.1), 'V >= 2'),
    (torch.ones(4, 2, 8), dict(temperature=0.), 'model.head.temperature'),
    (torch.ones(4, 2, 8), dict(temperature=math.nan), 'model.head.temperature'),
    (torch.ones(4, 2, 8), dict(temperature=0.1, pairs='each'), 'model.head.pairs'),
    (torch.ones(1, 2, 8), dict(temperature=0.1), 'train_dataloader.batch_size'),
])
def test_errors_name_the_fix(z, kwargs, match):
    with pytest.raises(ValueError, match=match):
        nt_xent(z, **kwargs)


class _AsTuple(nn.Module):

    def forward(self, x):
        return (x, )


@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_equals_mmpretrain(temperature):
    from mmpretrain.models import SimCLR
    reference = SimCLR(
        backbone=nn.Flatten(),
        neck=_AsTuple(),
        head=dict(
            type='mmpretrain.ContrastiveHead',
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
            temperature=temperature),
        data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'))
    z = projections(8, 2, 12).requires_grad_()
    theirs = reference.loss([z[:, v, :, None, None] for v in range(2)], None)['loss']
    ours = nt_xent(z, temperature)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


CASES = [(2, 'all'), (3, 'all'), (3, 'separate')]
IMAGES = 6


def _network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(7, 12), nn.GroupNorm(3, 12), nn.Tanh(), nn.Linear(12, 5)).double()


def _loss(network, inputs, pairs):
    n, num_views = inputs.shape[:2]
    return nt_xent(
        network(inputs.flatten(0, 1)).view(n, num_views, -1), 0.2, pairs=pairs)


def _process(rank, world_size, folder):
    """Losses and averaged gradients of this rank's share of the images."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', f'file://{folder}/rendezvous', rank=rank, world_size=world_size)
    results = []
    for num_views, pairs in CASES:
        network = nn.parallel.DistributedDataParallel(_network())
        share = projections(IMAGES, num_views, 7).chunk(world_size)[rank]
        loss = _loss(network, share, pairs)
        loss.backward()
        results.append((loss.item(), [p.grad for p in network.parameters()]))
    torch.save(results, folder / f'rank{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_processes_equal_one(world_size, tmp_path):
    mp.spawn(_process, (world_size, tmp_path), world_size)
    ranks = [torch.load(tmp_path / f'rank{rank}.pth') for rank in range(world_size)]
    for case, (num_views, pairs) in enumerate(CASES):
        network = _network()
        loss = _loss(network, projections(IMAGES, num_views, 7), pairs)
        loss.backward()
        mean = sum(rank[case][0] for rank in ranks) / world_size
        assert mean == pytest.approx(loss.item(), rel=1e-12)
        for rank in ranks:
            for gradient, p in zip(rank[case][1], network.parameters()):
                assert (gradient - p.grad).norm() <= 1e-10 * p.grad.norm()
