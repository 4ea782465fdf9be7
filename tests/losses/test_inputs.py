"""What every loss does with its inputs; strides, temperatures and zeros against dense losses."""

import math

import pytest
import torch
from helpers.dense import dense
from helpers.triples import projections

from simclr_mm import losses
from simclr_mm.errors import UserError

LOSSES = dict(
    nt_xent=losses.nt_xent,
    avg=lambda z, t: losses.nt_xent(z, t, 'separate'),
    nt_logistic=losses.nt_logistic,
    mined=lambda z, t: losses.nt_logistic(z, t, semi_hard=True),
    unnormalized=losses.unnormalized_xent,
    triplet=losses.margin_triplet,
    triplet_mined=lambda z, m: losses.margin_triplet(z, m, semi_hard=True),
)
each_loss = pytest.mark.parametrize('name', LOSSES)


def number_of(name):
    """A temperature or margin; dot products are larger than cosines."""
    return 10.0 if name == 'unnormalized' else 0.4


@each_loss
@pytest.mark.parametrize('num_views', [2, 3])
def test_gradient(name, num_views):
    z = projections(4, num_views, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, number_of(name)), z)


@pytest.mark.parametrize('name', ['nt_xent', 'nt_logistic', 'triplet'])
def test_refuses_second_derivatives(name):
    z = projections(4, 2).requires_grad_()
    with pytest.raises(RuntimeError, match='differentiated once'):
        torch.autograd.grad(LOSSES[name](z, 0.2), z, create_graph=True)


@pytest.mark.parametrize('name', ['nt_xent', 'nt_logistic'])
def test_inside_a_compiled_model(name):
    network, z = torch.nn.Linear(5, 4).double(), projections(4, 2)
    compiled = torch.compile(lambda z: LOSSES[name](network(z), 0.2), backend='eager')
    ours, right = (
        torch.autograd.grad(loss, network.weight)
        for loss in (compiled(z), LOSSES[name](network(z), 0.2))
    )
    torch.testing.assert_close(ours, right, rtol=1e-12, atol=0)


@each_loss
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_half_inputs_and_autocast_are_computed_in_float32(name, dtype):
    z = projections(16, 2, 32, dtype=dtype).requires_grad_()
    z64 = z.detach().double().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        loss = LOSSES[name](z, number_of(name))
    loss64 = LOSSES[name](z64, number_of(name))
    gradient, right = (torch.autograd.grad(x, y)[0] for x, y in ((loss, z), (loss64, z64)))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss64.item(), rel=1e-5)
    # The gradient itself is rounded to the input's type.
    error = (gradient.double() - right).norm() / right.norm()
    assert error < max(torch.finfo(dtype).eps, 1e-5)


@pytest.mark.parametrize('name', ['nt_xent', 'nt_logistic', 'margin_triplet', 'unnormalized_xent'])
def test_statistics_are_detached(name):
    z = projections(4, 2).requires_grad_()
    loss, stats = getattr(losses, f'{name}_with_stats')(z, 0.5)
    assert loss.requires_grad
    assert set(stats) == {'top1', 'pos_sim', 'neg_sim', 'chance'}
    assert not any(value.requires_grad or value.ndim for value in stats.values())


@each_loss
@pytest.mark.parametrize(
    'shape, match',
    [
        ((4, 8), r'\(n, V, d\).*\(4, 8\)'),
        ((4, 1, 8), 'V >= 2'),
        ((1, 2, 8), 'no negatives: set train_dataloader.batch_size'),
    ],
)
def test_what_are_no_projections(name, shape, match):
    with pytest.raises(UserError, match=match):
        LOSSES[name](torch.ones(shape), 0.5)


@each_loss
@pytest.mark.parametrize('num_views', [2, 3])
def test_any_strides(name, num_views):
    """From two batches stacked and transposed, from a slice, and from an expanded row."""
    views = [projections(8, 1, 16, seed=v)[:, 0] for v in range(num_views)]
    stacked = torch.stack(views).transpose(0, 1)
    sliced = projections(8, num_views, 32)[..., ::2]
    expanded = projections(8, 1, 16).expand(8, num_views, 16)
    for z in (stacked, sliced, expanded):
        z = z.detach().requires_grad_()
        loss = LOSSES[name](z, 0.5)
        right = LOSSES[name](z.contiguous(), 0.5)
        assert loss.item() == pytest.approx(right.item(), rel=1e-14)
        gradients = [torch.autograd.grad(each, z)[0] for each in (loss, right)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)
        if z is not expanded:  # where the mining of equal rows hangs on rounding
            assert loss.item() == pytest.approx(dense(name, z, 0.5).item(), rel=1e-12)


@pytest.mark.parametrize('name', ['nt_xent', 'avg', 'nt_logistic', 'mined', 'unnormalized'])
@pytest.mark.parametrize('num_views', [2, 3])
@pytest.mark.parametrize('shape', [(), (1,)])
def test_a_tensor_of_a_temperature_gets_its_gradient(name, num_views, shape):
    z = projections(6, num_views).requires_grad_()
    log_t = torch.full(shape, -0.7, dtype=torch.float64, requires_grad=True)
    loss, right = LOSSES[name](z, log_t.exp()), dense(name, z, log_t.exp())
    assert loss.item() == pytest.approx(right.item(), rel=1e-12)
    gradients = [torch.autograd.grad(3 * each, (log_t, z)) for each in (loss, right)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
    # Alone, as of frozen projections, and in float32.
    (alone,) = torch.autograd.grad(3 * LOSSES[name](z.detach(), log_t.exp()), log_t)
    assert alone.item() == pytest.approx(gradients[0][0].item(), rel=1e-12)
    low = log_t.detach().float().requires_grad_()
    (single,) = torch.autograd.grad(3 * LOSSES[name](z.detach().float(), low.exp()), low)
    assert single.dtype == torch.float32 and single.shape == shape
    assert single.item() == pytest.approx(alone.item(), rel=1e-4)


def test_a_margin_is_not_learnt():
    margin = torch.tensor(0.5, requires_grad=True)
    with pytest.raises(UserError, match='model.head.margin to a number'):
        losses.margin_triplet(projections(4, 2), margin)
    assert losses.margin_triplet(projections(4, 2), margin.detach()).equal(
        losses.margin_triplet(projections(4, 2), 0.5)
    )


@pytest.mark.parametrize('name', ['nt_xent', 'nt_logistic', 'unnormalized'])
@pytest.mark.parametrize(
    'value',
    [torch.ones(2), torch.tensor(0.0), torch.tensor(math.nan), '0.1', None, [0.1], -1.0, math.inf],
)
def test_what_is_no_temperature(name, value):
    with pytest.raises(UserError, match='model.head.temperature'):
        LOSSES[name](projections(4, 2), value)


@each_loss
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize('num_views', [2, 3])
def test_rows_of_zeros_say_nothing(name, dtype, num_views):
    z = projections(8, num_views, 16, dtype=dtype)
    z[0, 0] = 0
    z[3] = 0  # a whole image
    z.requires_grad_()
    t = number_of(name)
    loss, right = LOSSES[name](z, t), dense(name, z, t)
    assert loss.item() == pytest.approx(right.item(), rel=1e-5)
    gradient, expected = (torch.autograd.grad(each, z)[0] for each in (loss, right))
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)
    if name != 'unnormalized':  # whose rows have no direction to turn
        assert not gradient[0, 0].any() and not gradient[3].any()


@each_loss
def test_a_length_beyond_float32_is_no_row_of_zeros(name):
    if name == 'unnormalized':
        return  # it has no lengths to divide by
    z = projections(4, 2, dtype=torch.float32)
    z[0, 0] *= 1e25
    assert LOSSES[name](z, 0.5).isnan()


def test_statistics_with_a_row_of_zeros():
    z = projections(4, 2)
    z[1, 0] = 0
    rows = torch.nn.functional.normalize(z.flatten(0, 1), dim=1)
    other = torch.arange(8)[:, None] // 2 != torch.arange(8) // 2
    for function in (losses.nt_xent_with_stats, losses.nt_logistic_with_stats):
        stats = function(z, 0.5)[1]
        assert stats['neg_sim'].item() == pytest.approx((rows @ rows.T)[other].mean().item())
        units = rows.view(z.shape)
        assert stats['pos_sim'].item() == pytest.approx(units.prod(1).sum(1).mean().item())
