"""The ResNet of SimCLR v2: selective kernels in NumPy, initialisation, recomputed blocks."""

import numpy as np
import pytest
import torch
from helpers.models import on_meta, shaken
from mmpretrain.models.backbones.resnet import Bottleneck
from torch import nn

from simclr_mm.errors import UserError
from simclr_mm.models.google_resnet import GoogleResNet, SelectiveKernel

pytestmark = pytest.mark.portable


def batch_norm(x, norm):
    """BN in training, over all axes but the second."""
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    shape = [1, -1] + [1] * (x.ndim - 2)
    weight, bias = (p.detach().numpy().reshape(shape) for p in (norm.weight, norm.bias))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return weight * (x - mean) / np.sqrt(var + 1e-5) + bias


def selective_kernel(x, module, stride):
    """Two 3x3 convolutions, mixed per channel by a softmax: sk_conv2d of the reference code."""
    n, _, height, width = x.shape
    kernel = module.conv.weight.detach().numpy()  # (2C, C, 3, 3)
    channels = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = range(0, height, stride), range(0, width, stride)
    out = np.zeros((n, 2 * channels, len(rows), len(columns)))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            patch = padded[:, :, top : top + 3, left : left + 3]
            out[:, :, i, j] = np.einsum('ncyx,kcyx->nk', patch, kernel)
    out = np.maximum(batch_norm(out, module.bn), 0)
    first, second = out[:, :channels], out[:, channels:]
    squeezed = (first + second).mean((2, 3)) @ module.squeeze.weight.detach().numpy()[..., 0, 0].T
    squeezed = np.maximum(batch_norm(squeezed, module.squeeze_bn), 0)
    scores = np.exp(squeezed @ module.mix.weight.detach().numpy()[..., 0, 0].T)  # (n, 2C)
    share = scores[:, :channels] / (scores[:, :channels] + scores[:, channels:])
    share = share[:, :, None, None]
    return share * first + (1 - share) * second


@pytest.mark.parametrize('stride', [1, 2])
def test_selective_kernels(stride):
    torch.manual_seed(0)
    module = shaken(SelectiveKernel(5, stride).double())
    x = torch.randn(6, 5, 7, 8, dtype=torch.float64)
    expected = selective_kernel(x.numpy(), module, stride)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('channels, middle', [(64, 32), (512, 32), (1024, 64), (1536, 96)])
def test_a_sixteenth_of_the_channels_and_at_least_32(channels, middle):
    with torch.device('meta'):
        module = SelectiveKernel(channels, 1)
    assert module.squeeze.out_channels == module.mix.in_channels == middle


def test_small_blocks_have_no_selective_kernels():
    with pytest.raises(UserError, match='needs depth 50'):
        GoogleResNet(34, selective_kernels=True)


def test_initialisation():
    """Convolutions with variance 1 / fan-in; norms 1 and 0, the last of each block 0."""
    torch.manual_seed(0)
    net = GoogleResNet(50, width=0.5, selective_kernels=True)
    for p in net.parameters():
        nn.init.constant_(p, 7.0)
    net.init_weights()
    last = {id(block.norm3) for block in net.modules() if isinstance(block, Bottleneck)}
    assert len(last) == 16
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach()
            fan_in = weight[0].numel()
            noise = (2 / weight.numel()) ** 0.5
            assert weight.var() * fan_in == pytest.approx(1, abs=6 * noise), name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == (0 if id(module) in last else 1)).all(), name
            assert (module.bias == 0).all(), name


def test_recomputed_blocks_change_nothing():
    """Output, gradients and statistics; BN counts the batch once, not twice."""
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    found = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        net = shaken(GoogleResNet(50, 1 / 8, selective_kernels=True, with_cp=with_cp).double())
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            (maps,) = net(x)
        maps.square().sum().backward()
        buffers = {key: value.clone() for key, value in net.named_buffers()}
        found.append((maps, [p.grad for p in net.parameters()], buffers, len(saved)))
    (maps, grads, buffers, saved), (maps_, grads_, buffers_, saved_) = found
    assert torch.equal(maps, maps_)
    assert all(torch.equal(a, b) and a.any() for a, b in zip(grads, grads_))
    assert all(torch.equal(value, buffers_[key]) for key, value in buffers.items())
    assert saved_ < saved / 10


@pytest.mark.parametrize('depth, selective', [(18, False), (50, True)])
def test_every_norm_is_the_one_of_the_config(depth, selective):
    with on_meta():
        model = GoogleResNet(
            depth,
            width=0.25,
            selective_kernels=selective,
            norm_cfg=dict(type='GN', num_groups=2),
            init_cfg=None,
        )
        momentum = GoogleResNet(18, width=0.25, norm_cfg=dict(type='BN', momentum=0.01))
    kinds = {type(module) for module in model.modules() if 'Norm' in type(module).__name__}
    assert kinds == {nn.GroupNorm}
    if selective:  # the mix has its norm inside
        assert isinstance(model.layer1[0].gn2, nn.Identity)
    norms = [each for each in momentum.modules() if isinstance(each, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.01} and len(norms) == 21
