"""Variable names in Google's SimCLR checkpoints, of TensorFlow 1 and 2.

Facts are from github.com/google-research/simclr: ``resnet.py``, ``model_util.py`` and
``tf2/``. TensorFlow 1 numbers convolutions and norms in the order of their creation
(``base_model/conv2d_7``, ``base_model/batch_normalization_6``). TensorFlow 2 names them
by their path of attributes. One list of modules serves both.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simclr_mm.errors import CheckpointError

from .resnet_shape import BLOCKS
from .tensor_bundle import OBJECT_GRAPH, object_graph

_NORM = dict(gamma='weight', beta='bias', moving_mean='running_mean', moving_variance='running_var')
_V1_MODULE = re.compile(r'base_model/((?:conv2d|batch_normalization)(?:_\d+)?)/\w+')
_HEAD = re.compile(
    r'(?:head_contrastive/n?l_|_projection_head/linear_layers/)(\d+)/'
    r'(dense|batch_normalization|bn_relu/bn)/(\w+)'
)
# Paths of attributes that lead to a variable in TensorFlow 2.
_INNER = (r'conv2d\w*|batch_norm_relu(_1)?|bn_relu|bn|dense|kernel|gamma|beta|moving_\w+',) * 3
_V2_WAYS = tuple(
    (*way.split('/'), *_INNER)
    for way in (
        r'model/resnet_model/initial_conv_relu_max_pool/\d+',
        r'model/resnet_model/block_groups/\d+/layers/\d+/\w+_layers/\d+',
        r'model/_projection_head/linear_layers/\d+',
    )
)
# Modules that are created before the other modules of their block.
_FIRST = re.compile(
    'initial_conv_relu_max_pool|projection_layers|shortcut_layers|conv2d_fixed_padding'
)


@dataclass
class GoogleTensors:
    """The tensors of a checkpoint under our names."""

    encoder: dict[str, Tensor] = field(default_factory=dict)  # by keys of GoogleResNet
    head: dict[str, Tensor] = field(default_factory=dict)  # the projection head's, in order
    names: dict[str, str] = field(default_factory=dict)  # in the file, by keys of both
    arguments: dict[str, Any] = field(default_factory=dict)  # of simclr_mm.GoogleResNet


def google_tensors(values: Mapping[str, Any], source: str) -> GoogleTensors:
    """Sort the variables of a checkpoint, from ``read_bundle``.

    Raises:
        CheckpointError: They are not the variables of a SimCLR ResNet.
    """
    graph = values.get(OBJECT_GRAPH)
    names = {key: key for key in values} if graph is None else _places(graph)
    modules = _modules_in(names)
    convs = [module for module in modules if 'conv2d' in module.split('/')[-1]]
    norms = [module for module in modules if module not in convs]
    found = GoogleTensors()
    if not convs:
        raise CheckpointError(
            f'{source} is a TensorFlow checkpoint, but no SimCLR of google-research: it has no '
            'variable base_model/conv2d or resnet_model'
        )
    kernel = values[names[f'{convs[0]}/kernel']].shape
    depth, selective, small = _architecture(len(convs), kernel[0], source)
    pairs = list(_modules(depth, selective, small))
    targets = dict(zip(convs, (conv for conv, _ in pairs)))
    targets.update(zip(norms, (norm for _, norm in pairs if norm)))
    for place, name in names.items():
        module, _, variable = place.rpartition('/')
        if module in targets:
            key = f'{targets[module]}.{_NORM.get(variable, "weight")}'
            found.encoder[key] = _tensor(values[name])
            found.names[key] = name
    last = pairs[2 if selective and not small else 0][1]
    width = found.encoder[f'{last}.weight'].shape[0] / 64
    found.arguments = dict(depth=depth, width=int(width) if width % 1 == 0 else width)
    if selective:
        found.arguments['selective_kernels'] = True
    if small:
        found.arguments['small_images'] = True
    _add_head(found, names, values)
    return found


def _modules(depth: int, selective: bool, small: bool) -> Iterator[tuple[str, str | None]]:
    """Convolutions and the norms after them, in Google's order of creation.

    Every stage begins with a block whose shortcut is a convolution, created first.
    """
    if selective and not small:
        yield from ((f'stem.{place}.conv', f'stem.{place}.bn') for place in range(3))
    else:
        yield 'conv1', 'bn1'
    convs = 2 if depth < 50 else 3
    shift = int(selective)  # after the pool of ResNet-D's shortcut
    for stage, blocks in enumerate(BLOCKS[depth], 1):
        for number in range(blocks):
            block = f'layer{stage}.{number}.'
            if number == 0:
                yield f'{block}downsample.{shift}', f'{block}downsample.{shift + 1}'
            for conv in range(1, convs + 1):
                if conv == 2 and selective:
                    yield f'{block}conv2.conv', f'{block}conv2.bn'
                    yield f'{block}conv2.squeeze', f'{block}conv2.squeeze_bn'
                    yield f'{block}conv2.mix', None
                else:
                    yield f'{block}conv{conv}', f'{block}bn{conv}'


def _architecture(convs: int, kernel: int, source: str) -> tuple[int, bool, bool]:
    """Depth, selective kernels and 3x3 stem, from the number of convolutions."""
    for depth in BLOCKS:
        for selective in (False, True)[: 1 + (depth >= 50)]:
            for small in (False, True):
                if len(list(_modules(depth, selective, small))) == convs and kernel == (
                    3 if small or selective else 7
                ):
                    return depth, selective, small
    raise CheckpointError(
        f'{source} has {convs} convolutions, the first {kernel}x{kernel}, unlike every ResNet '
        f'of depth {", ".join(map(str, BLOCKS))} (not supported: squeeze-and-excitation, and '
        'ResNet-18 and -34 with --sk_ratio)'
    )


def _modules_in(names: Mapping[str, str]) -> list[str]:
    """Convolutions and norms of the encoder, in the order of their creation."""
    if any(name.startswith('base_model/') for name in names):
        matches = (_V1_MODULE.fullmatch(name) for name in names)
        found = {f'base_model/{match[1]}' for match in matches if match}
    else:
        found = {name.rpartition('/')[0] for name in names if name.startswith('resnet_model/')}
    return sorted(found, key=_made)


def _made(name: str) -> list:
    """Sort key of the order of creation. Digits count as numbers."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else part)
        for part in re.split('[/_]', _FIRST.sub('', name))
    ]


def _places(graph: bytes) -> dict[str, str]:
    """Names in a file of TensorFlow 2, by the variable's path of attributes below ``model``.

    Only the attributes of Google's classes are followed, because Keras adds lists that also
    lead to the variables.
    """
    objects = object_graph(graph)
    seen = set()  # a graph of few objects may have very many paths

    def follow(index: int, place: str, ways: tuple) -> Iterator[tuple[str, str]]:
        if (index, ways) in seen:
            return
        seen.add((index, ways))
        children, values = objects[index]
        for name in values.values():
            yield place.partition('/')[2], name
        for step, child in children.items():
            rest = tuple(way[1:] for way in ways if way and re.fullmatch(way[0], step))
            if rest:
                yield from follow(child, f'{place}/{step}' if place else step, rest)

    return dict(follow(0, '', _V2_WAYS))


def _add_head(found: GoogleTensors, names: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """Add the projection head, layer after layer. Its last norm has no beta."""
    matches = [(match, name) for at, name in names.items() if (match := _HEAD.fullmatch(at))]
    layers = [(int(match[1]), match[2] != 'dense', match[3], name) for match, name in matches]
    for layer, is_norm, variable, name in sorted(layers):
        key = f'{layer}.{"norm" if is_norm else "fc"}.{_NORM.get(variable, "weight")}'
        found.head[key] = _tensor(values[name])
        found.names[key] = name


def _tensor(value: np.ndarray) -> Tensor:
    """A tensor with PyTorch's order of axes: output channels first, not last."""
    tensor = torch.from_numpy(np.asarray(value, np.float32))
    if tensor.ndim == 4:
        tensor = tensor.permute(3, 2, 0, 1)  # (h, w, in, out) -> (out, in, h, w)
    elif tensor.ndim == 2:
        tensor = tensor.t()  # (in, out) -> (out, in)
    return tensor.contiguous()
