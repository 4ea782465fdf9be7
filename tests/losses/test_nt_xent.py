"""NT-Xent against nested loops, mmpretrain's code and real gloo processes."""

import math

import pytest
import torch
import torch.distributed as dist
from helpers.dense import dense
from helpers.processes import run_ranks
from helpers.triples import naive_xent, projections
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from simclr_mm.losses import (
    nt_logistic,
    nt_xent,
    nt_xent_with_stats,
    similarities,
    unnormalized_xent,
)


@pytest.mark.parametrize('pairs', ['all', 'separate'])
@pytest.mark.parametrize('num_views', [2, 3, 4])
@pytest.mark.parametrize('temperature', [0.05, 0.1, 1.0])
def test_equals_nested_loops(num_views, pairs, temperature):
    z = projections(6, num_views)
    loss, stats = nt_xent_with_stats(z, temperature, pairs=pairs)
    value, expected = naive_xent(z, temperature, pairs)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    found = {name: number.item() for name, number in stats.items()}
    assert found == pytest.approx(expected, rel=1e-12)
    assert nt_xent(z, temperature, pairs=pairs).equal(loss)


@pytest.mark.parametrize('pairs, rivals', [('all', 4 * 3 - 1), ('separate', 2 * 4 - 1)])
def test_equal_rows_are_at_chance(pairs, rivals):
    loss, stats = nt_xent_with_stats(torch.ones(4, 3, 8), 0.1, pairs)
    assert stats['chance'].item() == pytest.approx(math.log(rivals))
    assert loss.item() == pytest.approx(math.log(rivals))


@pytest.mark.parametrize(
    'temperature, tolerance', [(0.5, 1e-5), (0.1, 1e-5), (0.02, 1e-5), (0.01, 1e-4)]
)
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
    z = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[-1.0, 0.0], [-1.0, 0.0]]])
    expected = math.log1p(2 * math.exp(-2 / 0.1))
    assert nt_xent(z, 0.1).item() == pytest.approx(expected, rel=1e-5, abs=0)


@pytest.mark.parametrize(
    'kwargs, match',
    [(dict(temperature=1e-3), '>= 0.002'), (dict(temperature=0.1, pairs='each'), 'head.pairs')],
)
def test_errors_name_the_fix(kwargs, match):
    with pytest.raises(ValueError, match=match):
        nt_xent(torch.ones(4, 2, 8), **kwargs)


class _AsTuple(nn.Module):
    def forward(self, x):
        return (x,)


@pytest.mark.portable
@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_equals_mmpretrain(temperature):
    from mmpretrain.models import SimCLR

    reference = SimCLR(
        backbone=nn.Flatten(),
        neck=_AsTuple(),
        head=dict(
            type='mmpretrain.ContrastiveHead',
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
            temperature=temperature,
        ),
        data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
    )
    z = projections(8, 2, 12).requires_grad_()
    theirs = reference.loss([z[:, v, :, None, None] for v in range(2)], None)['loss']
    ours = nt_xent(z, temperature)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    'n, temperature, tolerance',
    [
        (723, 0.1, 1e-5),
        (725, 0.5, 1e-5),
        (1100, 0.1, 1e-5),
        (1100, 0.02, 1e-5),
        (1100, 0.013, 1e-4),
        (1100, 0.01, 1e-4),
    ],
)
def test_float32_at_full_size(n, temperature, tolerance):
    """Below and above 1448 rows, where tiles begin; in float64 from about 0.0128."""
    z = projections(n, 2, 32, dtype=torch.float32).requires_grad_()
    loss, expected = nt_xent(z, temperature), dense('nt_xent', z, temperature)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gradient, right = (torch.autograd.grad(x, z)[0] for x in (loss, expected))
    assert (gradient - right).norm() <= tolerance * right.norm()


def test_products_stay_float32():
    """PyTorch may be told to multiply in bfloat16; the loss does not listen."""
    z = projections(64, 2, 32, dtype=torch.float32).requires_grad_()
    (right,) = torch.autograd.grad(nt_xent(z, 0.1), z)
    torch.set_float32_matmul_precision('medium')
    try:
        (gradient,) = torch.autograd.grad(nt_xent(z, 0.1), z)
        assert torch.get_float32_matmul_precision() == 'medium'
    finally:
        torch.set_float32_matmul_precision('highest')
    assert gradient.equal(right)


def test_collapse_is_no_hit():
    """Rows that are alike but for rounding do not count as found."""
    z = torch.randn(1, 1, 32).expand(32, 2, 32) * torch.rand(32, 2, 1).add(0.5)
    assert nt_xent_with_stats(z, 0.1)[1]['top1'] == 0


class Watch(TorchDispatchMode):
    """Counts similarities, and the entries of the largest tensor that was made."""

    def __init__(self, d):
        super().__init__()
        self.d, self.similarities, self.largest = d, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        if 'mm' in func.__name__ and args[0].shape[-1] == self.d != out.shape[-1]:
            self.similarities += out.numel()
        return out


def test_memory_is_a_tile_and_the_rows():
    n, d = 1000, 7
    z = projections(n, 2, d).requires_grad_()
    with Watch(d) as watch:
        nt_xent_with_stats(z, 0.1)[0].backward()
    assert watch.largest <= 512**2
    # Both passes compute the upper triangle and the other half of diagonal tiles.
    rows = 2 * n
    assert watch.similarities <= 2 * (rows**2 / 2 + rows * 512 / 2)


CASES = [
    (2, 'all', nn.GroupNorm),
    (3, 'all', nn.GroupNorm),
    (3, 'separate', nn.GroupNorm),
    (2, 'all', nn.BatchNorm1d),
]
IMAGES = 12


def _network(norm):
    torch.manual_seed(0)
    layer = nn.GroupNorm(3, 12) if norm is nn.GroupNorm else norm(12)
    network = nn.Sequential(nn.Linear(7, 12), layer, nn.Tanh(), nn.Linear(12, 5))
    if norm is nn.BatchNorm1d:  # frozen, with statistics of its own
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
        layer.eval()
    return network.double()


def _loss(network, inputs, pairs):
    n, num_views = inputs.shape[:2]
    return nt_xent(network(inputs.flatten(0, 1)).view(n, num_views, -1), 0.2, pairs=pairs)


def _process(rank, most, folder):
    """Losses and averaged gradients of this rank's share, in jobs of 1 to 4 ranks."""
    torch.set_num_threads(1)
    similarities._SIDE['cpu'] = 4
    results = {}
    for world_size in range(max(1, rank + 1), most + 1):
        dist.init_process_group(
            'gloo', f'file://{folder}/rendezvous{world_size}', rank=rank, world_size=world_size
        )
        for case in CASES:
            num_views, pairs, norm = case
            network = nn.parallel.DistributedDataParallel(_network(norm))
            share = projections(IMAGES, num_views, 7).chunk(world_size)[rank]
            loss = _loss(network, share, pairs)
            loss.backward()
            results[world_size, case] = (loss.item(), [p.grad for p in network.parameters()])
        results[world_size] = _count(projections(IMAGES, 2, 7).chunk(world_size)[rank])
        for loss in LEARNT:
            share = projections(IMAGES, 3, 7).chunk(world_size)[rank]
            results[world_size, loss.__name__] = _of_temperature(loss, share)
        if world_size > 1:
            _refuses_unequal_shapes(rank)
        dist.destroy_process_group()
    torch.save(results, folder / f'rank{rank}.pth')


LEARNT = [nt_xent, nt_logistic, unnormalized_xent]


def _of_temperature(loss, z):
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    loss(z, temperature).backward()
    return temperature.grad.item()


def _count(z):
    with Watch(z.shape[-1]) as watch:
        nt_xent(z.requires_grad_(), 0.2).backward()
    return watch.similarities


def _refuses_unequal_shapes(rank):
    with pytest.raises(ValueError, match=r'\(2, 2, 5\).*\(3, 2, 5\).*batch_size'):
        nt_xent(projections(3 if rank else 2, 2), 0.2)


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    run_ranks(_process, 4, 4, folder)
    return [torch.load(folder / f'rank{rank}.pth', weights_only=False) for rank in range(4)]


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('world_size', [1, 2, 3, 4])
def test_processes_equal_one(world_size, case, ranks):
    num_views, pairs, norm = case
    network = _network(norm)
    loss = _loss(network, projections(IMAGES, num_views, 7), pairs)
    loss.backward()
    results = [rank[world_size, case] for rank in ranks[:world_size]]
    mean = sum(value for value, _ in results) / world_size
    assert mean == pytest.approx(loss.item(), rel=1e-12)
    for _, gradients in results:
        for gradient, p in zip(gradients, network.parameters()):
            assert (gradient - p.grad).norm() <= 1e-10 * p.grad.norm()


@pytest.mark.parametrize('loss', LEARNT)
@pytest.mark.parametrize('world_size', [2, 3, 4])
def test_gradients_of_a_temperature_average_to_that_of_one_process(world_size, loss, ranks):
    one = _of_temperature(loss, projections(IMAGES, 3, 7))
    each = [rank[world_size, loss.__name__] for rank in ranks[:world_size]]
    assert sum(each) / world_size == pytest.approx(one, rel=1e-10)


@pytest.mark.parametrize('world_size', [2, 3, 4])
def test_processes_share_the_work(world_size, ranks):
    rows = 2 * IMAGES
    for rank in ranks[:world_size]:
        one_pass = rank[world_size] / 2
        assert one_pass <= rows**2 / world_size - (rows / world_size) ** 2 / 2
        # Half of the matrix by W, the other half of diagonal tiles of four rows, and an
        # image where two ranks cannot halve what they share.
        assert one_pass <= rows**2 / (2 * world_size) + rows / world_size * (2 + 2)


def _gpu_process(rank, world_size, folder):
    dist.init_process_group('gloo', f'file://{folder}/rendezvous', rank=rank, world_size=world_size)
    network = nn.SyncBatchNorm.convert_sync_batchnorm(_network_with_bn()).cuda()
    network = nn.parallel.DistributedDataParallel(network)
    share = projections(IMAGES, 2, 7).chunk(world_size)[rank].cuda()
    _loss(network, share, 'all').backward()
    torch.save([p.grad.cpu() for p in network.parameters()], folder / f'rank{rank}.pth')
    dist.destroy_process_group()


def _network_with_bn():
    return _network(nn.BatchNorm1d).train()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='SyncBN needs a GPU')
def test_sync_bn_of_two_processes_equals_one(tmp_path):
    """On one GPU, which gloo can share and NCCL cannot."""
    run_ranks(_gpu_process, 2, 2, tmp_path)
    network = _network_with_bn().cuda()
    _loss(network, projections(IMAGES, 2, 7).cuda(), 'all').backward()
    for rank in range(2):
        gradients = torch.load(tmp_path / f'rank{rank}.pth')
        for gradient, p in zip(gradients, network.parameters()):
            assert (gradient - p.grad.cpu()).norm() <= 1e-10 * p.grad.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='compares a GPU with the CPU')
@pytest.mark.parametrize('n', [512, 5000])
def test_gpu_equals_cpu(n):
    z = projections(n, 2, 32, dtype=torch.float32).requires_grad_()
    on_gpu = z.detach().cuda().requires_grad_()
    loss, other = nt_xent(z, 0.1), nt_xent(on_gpu, 0.1)
    loss.backward()
    other.backward()
    assert other.item() == pytest.approx(loss.item(), rel=1e-5)
    assert (on_gpu.grad.cpu() - z.grad).norm() <= 1e-5 * z.grad.norm()
