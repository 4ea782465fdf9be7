"""Rename a foreign checkpoint's keys to those of mmselfsup and mmpretrain.

Examples are ``backbone.layer1.0.conv1.weight``, ``neck.fc0.weight``,
``neck.bn0.weight``. This module knows keys and tensors, no models.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from simclr_mm.errors import CheckpointError

from .google_layout import google_tensors
from .layouts import LAYOUTS, UNIT_RANGE, bare_key, recognised, weights_in
from .resnet_shape import TIMM_STEM

_PARTS = ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4')
# Index of a ResNet's parts in an nn.Sequential: torchvision's has ReLU and pool among
# them, lightly's small one does not.
_PLACES = {4: dict(zip('014567', _PARTS)), 2: dict(zip('012345', _PARTS))}
_FROM_TIMM_STEM = {theirs: ours for ours, theirs in TIMM_STEM.items()}
_OF_THE_RUN = re.compile(
    '/(?:Momentum|Adam\\w*)$|optimizer|OPTIMIZER_SLOT|global_step|save_counter|_CHECKPOINTABLE'
)


@dataclass
class Conversion:
    """A state_dict with our keys, the origin of each key, and the settings that it needs."""

    layout: str = ''  # name of the library; '' for keys that stay as they are
    # Mean and std of its preprocessing, RGB in [0, 255]. Empty: those of the config.
    normalise: Mapping[str, Sequence[float]] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)  # by our keys: backbone.*, neck.*
    names: dict[str, str] = field(default_factory=dict)  # keys in the file by our keys
    left: dict[str, str] = field(default_factory=dict)  # the reason for each unused key
    # For each of our keys that the file lacks, a description of its value.
    filled: dict[str, str] = field(default_factory=dict)
    # The backbone of a config that equals its network.
    backbone: dict[str, Any] = field(default_factory=dict)
    # 'solo' or 'lightly' for that library's ResNet for small images. No key shows its stem.
    stem: str = ''


def to_our_keys(checkpoint: Any, source: str) -> Conversion:
    """Recognise a PyTorch checkpoint from ``load_file`` and rename its keys.

    mmpretrain's own keys stay unchanged, heads included.

    Raises:
        CheckpointError: It holds no weights, keys of no known library, or two tensors for one key.
    """
    tensors, left = weights_in(checkpoint, source)
    layout = recognised(tensors)
    if layout is None:
        raise CheckpointError(
            f'{source} has keys of no known library ({", ".join(list(tensors)[:4])[:200]}, ...). '
            f'Known are {", ".join(dict.fromkeys(entry.name for entry in LAYOUTS))}, timm and '
            "google-research: rename the encoder's keys to backbone.*"
        )
    result = Conversion(layout.name, layout.normalise, left=left)
    if layout.name == 'mmpretrain':
        for key, tensor in tensors.items():
            # mmselfsup 0.x calls the classifier of its linear evaluation fc_cls.
            ours = re.sub(r'^head\.fc_cls\.', 'head.fc.', bare_key(key))
            result.state[ours], result.names[ours] = tensor, key
        return result
    encoder: dict[str, str] = {}
    head: dict[str, str] = {}
    for key, tensor in tensors.items():
        bare = bare_key(key)
        in_head = re.match(layout.head, bare)
        match = in_head or re.match(layout.encoder, bare)
        if not match:
            result.left[key] = _why_left(bare)
            continue
        keys, ours = head if in_head else encoder, bare[match.end() :]
        first = keys.setdefault(ours, key)
        if first != key and torch.equal(tensors[first], tensor):  # saved under two names
            result.left[key] = f'the same as {first}'
        elif first != key:
            raise CheckpointError(
                f'{source}: {first} and {key} differ, and both would be {ours}: remove one'
            )
    _add_encoder(result, {ours: tensors[key] for ours, key in encoder.items()}, encoder)
    _add_head(result, {ours: tensors[key] for ours, key in head.items()}, head)
    return result


def from_google(values: Mapping[str, Any], source: str) -> Conversion:
    """:func:`to_our_keys` for the variables of a TensorFlow checkpoint, from ``read_bundle``."""
    found = google_tensors(values, source)
    result = Conversion('google-research', UNIT_RANGE)
    result.backbone = dict(type='simclr_mm.GoogleResNet', **found.arguments)
    _add_encoder(result, found.encoder, found.names)
    _add_head(result, found.head, found.names)
    used = {*result.names.values(), *result.left}
    result.left.update({key: _why_left(key) for key in values if key not in used})
    return result


def _why_left(bare: str) -> str:
    if re.search(r'momentum|encoder_k|queue|ema_model', bare):
        return 'a moving average or a queue, not the encoder itself'
    if _OF_THE_RUN.search(bare):
        return 'state of the training run'
    if re.search(r'\bfc\b|classifier|supervised|linear|head', bare):
        return 'a classifier, which a SimCLR does not have'
    return 'part of neither encoder nor projection head'


def _add_encoder(
    result: Conversion, tensors: Mapping[str, Tensor], names: Mapping[str, str]
) -> None:
    """Rename the encoder's keys, and fill in the counters that old files lack."""
    small = any(key.startswith('2.0.') for key in tensors)
    places = _PLACES[2 if small else 4]
    stem = tensors.get('conv1.weight')
    if small:
        result.stem = 'lightly'
    elif result.layout == 'solo-learn' and stem is not None and stem.shape[-1] == 3:
        result.stem = 'solo'
    deep = 'conv1.0.weight' in tensors
    # With stride 1 timm has an identity before the convolution, mmpretrain nothing.
    shifted = getattr(tensors.get('layer1.0.downsample.1.weight'), 'ndim', 1) == 4 and (
        not result.backbone
    )
    for key, tensor in tensors.items():
        module, _, variable = key.rpartition('.')
        first, dot, rest = module.partition('.')
        module = f'{places.get(first, first)}{dot}{rest}'
        module = module.replace('.shortcut.', '.downsample.')
        if deep:
            module = _FROM_TIMM_STEM.get(module, module)
        if shifted and module.startswith('layer1.0.downsample.'):
            module = f'layer1.0.downsample.{int(module[-1]) - 1}'
        ours = f'backbone.{module}.{variable}'
        result.state[ours], result.names[ours] = tensor, names[key]
    _fill_counters(result, 'backbone.')


def _add_head(result: Conversion, tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Rename the layers of the projection head: fc0, bn0, fc1 and so on."""
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, _, variable = key.rpartition('.')
        modules.setdefault(module, {})[variable] = tensor
    kinds = ''.join('n' if 'running_mean' in each else 'f' for each in modules.values())
    normed, plain = re.fullmatch('(?:fn)+', kinds), re.fullmatch('f+', kinds)
    widths = {len(each['weight']) for each in list(modules.values())[: -2 if normed else -1]}
    if not (normed or plain) or len(widths) > 1:
        reason = (
            'layers with and without batch norm, or of several widths, which '
            'ProjectionNeck does not have'
        )
        result.left.update({names[key]: reason for key in tensors} if tensors else {})
        return
    for place, (name, variables) in enumerate(modules.items()):
        layer = place // 2 if normed else place
        ours = f'neck.{"bn" if normed and place % 2 else "fc"}{layer}.'
        for variable, tensor in variables.items():
            result.state[ours + variable] = tensor
            result.names[ours + variable] = names[f'{name}.{variable}']
    for layer in range(len(modules) // 2 if normed else len(modules)):
        (_fill_norm if normed else _fill_bias)(result, layer)
    _fill_counters(result, 'neck.')


def _fill_norm(result: Conversion, layer: int) -> None:
    """Give a norm its scale and shift, and move the previous layer's bias into its mean."""
    state, norm = result.state, f'neck.bn{layer}.'
    mean = state[f'{norm}running_mean']
    for variable, value in (('weight', 1.0), ('bias', 0.0)):
        if norm + variable not in state:
            state[norm + variable] = torch.full_like(mean, value)
            result.filled[norm + variable] = f'{value:g}: the norm has none'
    bias = state.pop(f'neck.fc{layer}.bias', None)
    if bias is not None:
        key = result.names.pop(f'neck.fc{layer}.bias')
        state[f'{norm}running_mean'] = mean - bias
        result.left[key] = f'subtracted from {norm}running_mean, which is the same'


def _fill_bias(result: Conversion, layer: int) -> None:
    key = f'neck.fc{layer}.bias'
    if key not in result.state:
        weight = result.state[f'neck.fc{layer}.weight']
        result.state[key] = weight.new_zeros(len(weight))
        result.filled[key] = '0: the layer has none'


def _fill_counters(result: Conversion, prefix: str) -> None:
    for key in [key for key in result.state if key.endswith('.running_mean')]:
        counter = key.replace('running_mean', 'num_batches_tracked')
        if key.startswith(prefix) and counter not in result.state:
            result.state[counter] = torch.tensor(0)
            result.filled[counter] = '0: not counted'
