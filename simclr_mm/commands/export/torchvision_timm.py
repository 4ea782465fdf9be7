"""Export ResNets to torchvision and timm, and timm's own models to timm."""

from typing import Any

from torch import Tensor

from simclr_mm.apis.encoder import Encoder
from simclr_mm.checkpoints.foreign.resnet_shape import ResNetShape, resnet_shape, timm_keys
from simclr_mm.errors import CheckpointError
from simclr_mm.registry import type_name

from .backbone import file_of, settings_of, tensors_of
from .target import Names, Target, code, literal

_TYPES = ('ResNet', 'ResNet_CIFAR', 'ResNeXt', 'ResNetV1c', 'ResNetV1d')
# Arguments that their constructors fix and that no tensor shows.
_FIXED = dict(style='pytorch', strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))
# mmpretrain's TIMMBackbone: the prefix of its model, and arguments that are not timm's.
_INSIDE = 'timm_model.'
_NOT_TIMMS = ('type', 'model_name', 'pretrained', 'checkpoint_path', 'in_channels', 'init_cfg')


class Torchvision(Target):
    """A ResNet under torchvision's names, which equal ours."""

    packages: tuple[str, ...] = ('torchvision',)
    use = 'features = model(preprocess(picture)[None])  # (1, C)'

    def tensors(self, encoder: Encoder) -> dict[str, Tensor]:
        shape = _shape(encoder, 'torchvision')
        if shape.deep_stem or shape.avg_down:
            raise CheckpointError(
                f'{file_of(encoder)}: torchvision has no ResNet with a stem of three '
                'convolutions or an average pool in its shortcuts; export it to timm'
            )
        return tensors_of(encoder)

    def setup(self, encoder: Encoder, path: str) -> str:
        """Code that builds ``model`` and ``preprocess``."""
        shape = _shape(encoder, 'torchvision')
        options = _options(groups=(shape.groups, 1), width_per_group=(shape.group_width, 64))
        stem = _stem(encoder, shape)
        if (shape.stem, shape.planes) != (64, 64):  # widths that the constructor fixes
            block = 'Bottleneck' if shape.bottleneck else 'BasicBlock'
            stem.insert(0, f'model.inplanes = {shape.stem}')
            stem += [
                f'model.bn1 = torch.nn.BatchNorm2d({shape.stem})',
                f'for stage, blocks in enumerate({list(shape.blocks)}):',
                '    layer = model._make_layer(',
                f'        torchvision.models.resnet.{block}, {shape.planes} * 2**stage, blocks,',
                '        stride=2 if stage else 1)',
                "    setattr(model, f'layer{stage + 1}', layer)",
            ]
        return code(
            'import torch, torchvision',
            'from torchvision.transforms import v2',
            f'model = torchvision.models.resnet{shape.depth}({", ".join(_code(options))})',
            'model.fc = torch.nn.Identity()',
            *stem,
            f'model.load_state_dict(torch.load({path!r})["state_dict"])',
            'model.eval()',
            f'preprocess = {encoder.preprocessing.torchvision()}',
        )


class Timm(Torchvision):
    """A ResNet under timm's names, or the timm model inside a TIMMBackbone."""

    packages: tuple[str, ...] = ('timm',)

    def tensors(self, encoder: Encoder) -> dict[str, Tensor]:
        state = tensors_of(encoder)
        names = _timm_names(encoder, state)
        return {names[key]: value for key, value in state.items()}

    def setup(self, encoder: Encoder, path: str) -> str:
        """Code that builds ``model`` and ``preprocess``."""
        settings = ', '.join(f'{k}={v!r}' for k, v in encoder.preprocessing.timm().items())
        name, options, stem = timm_model(encoder)
        return code(
            'import timm, torch',
            f'model = timm.create_model({name!r}, {", ".join(["num_classes=0", *_code(options)])},',
            f'    pretrained_cfg_overlay=dict({settings}))',
            *stem,
            f'timm.models.load_checkpoint(model, {path!r})',
            'model.eval()',
            'preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))',
        )

    def weights(self, encoder: Encoder, names: Names) -> dict[str, Tensor]:
        theirs = _timm_names(encoder, tensors_of(encoder))
        ours = {name: key for key, name in theirs.items()}
        return {ours[name]: value for name, value in names['model'].state_dict().items()}


def _is_timms(encoder: Encoder) -> bool:
    return type_name(settings_of(encoder)) == 'TIMMBackbone'


def _timm_names(encoder: Encoder, state: dict[str, Tensor]) -> dict[str, str]:
    """timm's names by ours."""
    if _is_timms(encoder):
        return {key: key.removeprefix(_INSIDE) for key in state}
    _shape(encoder, 'timm')
    return timm_keys(state)


def timm_model(encoder: Encoder) -> tuple[str, dict[str, Any], list[str]]:
    """Name and arguments of a timm model, and code that changes it."""
    if _is_timms(encoder):
        settings = settings_of(encoder)
        arguments = {key: v for key, v in settings.items() if key not in _NOT_TIMMS}
        if arguments.pop('features_only', False):
            raise CheckpointError(
                f'{file_of(encoder)}: features_only=True of its TIMMBackbone removes the last '
                'layers, so its features differ from those of the timm model; export it '
                'to onnx, mmpretrain or safetensors'
            )
        return settings['model_name'], arguments, []
    shape = _shape(encoder, 'timm')
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
    return f'resnet{shape.depth}', options, _stem(encoder, shape)


def _shape(encoder: Encoder, target: str) -> ResNetShape:
    settings = settings_of(encoder)
    name = type_name(settings)
    reason = '' if name in _TYPES else name
    for key, usual in _FIXED.items():
        value = settings.get(key, usual)
        if (tuple(value) if isinstance(value, list) else value) != usual:
            reason = reason or f'{key}={value}'
    if reason:
        raise CheckpointError(
            f'{file_of(encoder)}: {target} does not support this backbone ({reason}), only '
            f'{", ".join(_TYPES)} with the usual strides; export it to mmpretrain, '
            'onnx or safetensors'
        )
    shape = resnet_shape(tensors_of(encoder), file_of(encoder))
    if shape.depth is None:
        raise CheckpointError(
            f'{file_of(encoder)}: {target} has no ResNet with stages of {shape.blocks} blocks; '
            'export it to mmpretrain, onnx or safetensors'
        )
    return shape


def _options(**values: tuple) -> dict[str, Any]:
    """Arguments that differ from their defaults, given as (value, default)."""
    return {key: value for key, (value, default) in values.items() if value != default}


def _code(arguments: dict[str, Any]) -> list[str]:
    return [f'{key}={literal(value)}' for key, value in arguments.items()]


def _stem(encoder: Encoder, shape: ResNetShape) -> list[str]:
    """Code for a stem of one convolution that the constructor cannot build."""
    lines = []
    if not shape.deep_stem and (shape.stem, shape.stem_kernel) != (64, 7):
        stride = '' if shape.stem_kernel == 3 else ', stride=2'
        lines.append(
            f'model.conv1 = torch.nn.Conv2d(3, {shape.stem}, {shape.stem_kernel}{stride}, '
            f'padding={shape.stem_kernel // 2}, bias=False)'
        )
    if type_name(settings_of(encoder)) == 'ResNet_CIFAR':
        lines.append('model.maxpool = torch.nn.Identity()')
    return lines
