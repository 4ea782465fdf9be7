"""Small models and their inputs."""

import torch
from torch import nn

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
