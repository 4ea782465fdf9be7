"""A batch in chunks against the same batch in one pass, and against plain chunks."""

import pytest
import torch
from helpers.models import THIN, build, freeze_norms
from torch import nn

from simclr_mm.models.micro_batches import in_micro_batches

GROUP_NORM = dict(
    backbone=dict(THIN, norm_cfg=dict(type='GN', num_groups=4)),
    neck=dict(type='simclr_mm.ProjectionNeck', norm_cfg=dict(type='GN', num_groups=4)),
)


def views(n=7, num_views=2):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, num_views, 3, 8, 8, generator=generator)


def loss_and_gradient(model, inputs):
    loss = model(inputs, mode='loss')['loss']
    loss.backward()
    return loss.detach(), gradient(model)


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def assert_near(ours, expected, tolerance):
    for value, expected_value in zip(ours, expected):
        assert (value - expected_value).norm() <= tolerance * expected_value.norm()


@pytest.mark.parametrize('kwargs', [{}, GROUP_NORM], ids=['frozen BN', 'GroupNorm'])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_equals_one_pass(kwargs, dtype, tolerance):
    inputs = views(num_views=3).to(dtype)
    whole = freeze_norms(build(**kwargs).to(dtype))
    expected = loss_and_gradient(whole, inputs)
    for size in (1, 3, 6):
        model = freeze_norms(build(micro_batch_size=size, **kwargs).to(dtype))
        assert_near(loss_and_gradient(model, inputs), expected, tolerance)


def test_chunks_hold_few_images_with_all_their_views_and_run_twice():
    model = build(micro_batch_size=3)
    rows = []
    model.backbone.register_forward_hook(lambda _, args, out: rows.append(len(args[0])))
    loss = model(views(), mode='loss')['loss']
    assert rows == [6, 4, 4]  # two views of 3, 2 and 2 images
    loss.backward()
    assert sorted(rows) == [4, 4, 4, 4, 6, 6]
    assert model.projections.shape == (7, 2, 128)
    assert not model.projections.requires_grad


def test_bn_uses_and_counts_each_chunk_once():
    """Against plain chunks, whose graphs are all kept."""
    inputs = views().double()
    model, plain = build(micro_batch_size=3).double(), build().double()
    ours = loss_and_gradient(model, inputs)
    chunks = [
        plain.backbone(inputs[rows].flatten(0, 1))[-1].mean((2, 3))
        for rows in (slice(0, 3), slice(3, 5), slice(5, 7))
    ]
    z = torch.cat([plain.neck(chunk) for chunk in chunks]).view(7, 2, -1)
    loss = plain.head.loss(z)['loss']
    loss.backward()
    assert_near(ours, (loss.detach(), gradient(plain)), 1e-12)
    assert model.neck.bn0.num_batches_tracked == 3
    for (key, buffer), other in zip(model.named_buffers(), plain.buffers()):
        torch.testing.assert_close(buffer, other, msg=key)


class Noisy(nn.Sequential):
    """Rows, dropout and a norm."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Linear(5, 6), nn.Dropout(), nn.BatchNorm1d(6))


@pytest.mark.parametrize('autocast', [False, True])
def test_the_second_pass_repeats_dropout_and_autocast(autocast):
    ours, plain = Noisy(), Noisy()
    x = torch.randn(8, 5)
    gradients = []
    for model in (ours, plain):
        torch.manual_seed(1)
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            if model is ours:
                (z,) = in_micro_batches(lambda rows: (ours(rows),), x, 4, ours)
            else:
                z = torch.cat([model(chunk) for chunk in x.split(4)])
        torch.rand(3)  # something else draws before the backward pass
        z.float().square().mul(torch.arange(6.0)).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for grad, expected in zip(*gradients):
        assert grad.equal(expected) and grad.any()


def test_statistics_survive_an_error_in_the_second_pass():
    model = Noisy()
    (z,) = in_micro_batches(lambda rows: (model(rows),), torch.randn(8, 5), 4, model)
    before = {key: buffer.clone() for key, buffer in model.named_buffers()}

    def fail(*args):
        raise RuntimeError('second pass')

    model[0].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match='second pass'):
        z.sum().backward()
    for key, buffer in model.named_buffers():
        assert buffer.equal(before[key])


@pytest.mark.parametrize('value', [0, -1, 2.5, '8', True])
def test_errors_name_the_key(value):
    with pytest.raises(ValueError, match='model.micro_batch_size'):
        build(micro_batch_size=value)
