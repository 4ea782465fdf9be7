"""ResNets as torchvision and timm have them."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simclr_mm.checkpoints.foreign.resnet_shape import ResNetShape, renamed, resnet_shape, timm_keys
from simclr_mm.errors import CheckpointError

from .source import Source

_TYPES = ('ResNet', 'ResNet_CIFAR', 'ResNeXt', 'ResNetV1c', 'ResNetV1d')
# What their constructors fix and no tensor tells.
_FIXED = dict(style='pytorch', strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))


def torchvision_tensors(source: Source) -> dict[str, Tensor]:
    """The tensors under torchvision's names, which are ours."""
    shape = _shape(source, 'torchvision')
    if shape.deep_stem or shape.avg_down:
        raise CheckpointError(
            f'{source.file}: torchvision has no ResNet with a stem of three '
            'convolutions or an average pool in its shortcuts; export it to timm'
        )
    return dict(source.state)


def timm_tensors(source: Source) -> dict[str, Tensor]:
    """The tensors under timm's names."""
    _shape(source, 'timm')
    return renamed(source.state, timm_keys(source.state))


def torchvision_setup(source: Source, path: str) -> str:
    """Code that makes ``model`` and ``preprocess``."""
    shape = _shape(source, 'torchvision')
    options = _options(groups=(shape.groups, 1), width_per_group=(shape.group_width, 64))
    lines = [
        'import torch, torchvision',
        'from torchvision.transforms import v2',
        f'model = torchvision.models.resnet{shape.depth}({", ".join(options)})',
        'model.fc = torch.nn.Identity()',
    ]
    stem = _stem(source, shape)
    if (shape.stem, shape.planes) != (64, 64):  # widths that the constructor fixes
        block = 'Bottleneck' if shape.bottleneck else 'BasicBlock'
        stem.insert(0, f'model.inplanes = {shape.stem}')
        stem += [
            f'model.bn1 = torch.nn.BatchNorm2d({shape.stem})',
            f'for stage, blocks in enumerate({list(shape.blocks)}):\n'
            '    layer = model._make_layer(\n'
            f'        torchvision.models.resnet.{block}, {shape.planes} * 2**stage,'
            ' blocks,\n'
            '        stride=2 if stage else 1)\n'
            "    setattr(model, f'layer{stage + 1}', layer)",
        ]
    return '\n'.join(
        [
            *lines,
            *stem,
            f'model.load_state_dict(torch.load({path!r})["state_dict"])',
            'model.eval()',
            f'preprocess = {source.preprocessing.torchvision()}',
        ]
    )


def timm_setup(source: Source, path: str) -> str:
    """Code that makes ``model`` and ``preprocess``."""
    shape = _shape(source, 'timm')
    widths = tuple(shape.planes * 2**stage for stage in range(4))
    deep = shape.deep_stem or shape.stem != 64  # sets the stem's width, too
    options = _options(
        cardinality=(shape.groups, 1),
        base_width=(shape.group_width, 64),
        channels=(widths, (64, 128, 256, 512)),
        avg_down=(shape.avg_down, False),
        stem_type=('deep' if deep else '', ''),
        stem_width=(shape.stem // 2 if deep else 64, 64),
    )
    settings = ', '.join(f'{k}={v!r}' for k, v in source.preprocessing.timm().items())
    return '\n'.join(
        [
            'import timm, torch',
            f'model = timm.create_model("resnet{shape.depth}", '
            f'{", ".join(["num_classes=0", *options])},\n'
            f'    pretrained_cfg_overlay=dict({settings}))',
            *_stem(source, shape),
            f'timm.models.load_checkpoint(model, {path!r})',
            'model.eval()',
            'preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))',
        ]
    )


def run(source: Source, namespace: dict[str, Any], pictures: list[np.ndarray]) -> Tensor:
    """(n, C) of the model that the code made."""
    images = [namespace['preprocess'](Image.fromarray(rgb)) for rgb in pictures]
    with torch.no_grad():
        return namespace['model'](torch.stack(images))


def torchvision_weights(source: Source, namespace: dict[str, Any]) -> dict[str, Tensor]:
    """What the model holds, under our names."""
    return namespace['model'].state_dict()


def timm_weights(source: Source, namespace: dict[str, Any]) -> dict[str, Tensor]:
    """What the model holds, under our names."""
    ours = {theirs: key for key, theirs in timm_keys(source.state).items()}
    return renamed(namespace['model'].state_dict(), ours)


def _shape(source: Source, target: str) -> ResNetShape:
    settings = source.backbone
    name = settings['type'].split('.')[-1]
    differing = [
        key
        for key, value in _FIXED.items()
        if key in settings and type(value)(settings[key]) != value
    ]
    if name not in _TYPES or differing:
        reason = f'{differing[0]}={settings[differing[0]]}' if differing else name
        raise CheckpointError(
            f'{source.file}: {target} has no place for this backbone ({reason}), only '
            f'for {", ".join(_TYPES)} with the usual strides; export it to mmpretrain, '
            'onnx or safetensors'
        )
    shape = resnet_shape(source.state, source.file)
    if shape.depth is None:
        raise CheckpointError(
            f'{source.file}: {target} has no ResNet with stages of {shape.blocks} blocks; export '
            'it to mmpretrain, onnx or safetensors'
        )
    return shape


def _options(**values: tuple) -> list[str]:
    """Arguments that differ from their default, given as (value, default)."""
    return [f'{key}={value!r}' for key, (value, default) in values.items() if value != default]


def _stem(source: Source, shape: ResNetShape) -> list[str]:
    """Code for a stem of one convolution that the constructor does not make."""
    lines = []
    if not shape.deep_stem and (shape.stem, shape.stem_kernel) != (64, 7):
        stride = '' if shape.stem_kernel == 3 else ', stride=2'
        lines.append(
            f'model.conv1 = torch.nn.Conv2d(3, {shape.stem}, '
            f'{shape.stem_kernel}{stride}, padding={shape.stem_kernel // 2}, '
            'bias=False)'
        )
    if source.backbone['type'].endswith('ResNet_CIFAR'):
        lines.append('model.maxpool = torch.nn.Identity()')
    return lines
