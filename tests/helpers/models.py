"""Small models and their inputs."""

import math
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from simclr_mm.registry import MODELS

THIN = dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8)


def build(backbone=THIN, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(type='simclr_mm.SimCLR', backbone=backbone, **kwargs))


def pixels(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def freeze_norms(model):
    """BN as it is in evaluation, so that no row depends on another."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def shaken(module):
    """No two weights and no two BN statistics alike."""
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.8, 1.2)
            norm.num_batches_tracked.random_(100)
            torch.nn.init.uniform_(norm.weight, 0.5, 1)
            torch.nn.init.normal_(norm.bias, 0, 0.1)
    return module


@contextmanager
def on_meta():
    """Models that are built here have shapes and no values: 795 M weights take no memory."""
    linspace = torch.linspace  # whose values mmpretrain's ResNet reads
    with pytest.MonkeyPatch.context() as patch, torch.device('meta'):
        patch.setattr(torch, 'linspace', lambda *args: linspace(*args, device='cpu'))
        yield


def multiply_adds(model, side):
    """Those of one image of this side, two for each output of a BN, as MMEngine counts."""

    def norm(*args, out_shape, **kwargs):
        return 4 * math.prod(out_shape[0])  # the counter has two for each multiply-add

    ops = torch.ops.aten
    norms = {op: norm for op in (ops.native_batch_norm, ops._native_batch_norm_legit_no_training)}
    counter = FlopCounterMode(display=False, custom_mapping=norms)
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    with counter, torch.no_grad():
        model.eval()(torch.empty(1, first.in_channels, side, side, device='meta'))
    return counter.get_total_flops() // 2
