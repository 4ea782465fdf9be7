"""Read a ResNet's shape from its tensors, and map its keys to torchvision and timm."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from simclr_mm.errors import CheckpointError

_RESNET_KEY = re.compile(
    r'(?:(?:conv1|bn1|stem\.[012]\.(?:conv|bn)|'
    r'layer[1-4]\.\d+\.(?:conv[123]|bn[123]|downsample\.[012]))'
    r'\.(?:weight|bias|running_mean|running_var|num_batches_tracked))'
)
# timm numbers all modules of a deep stem, ReLUs included. Its last norm is bn1.
TIMM_STEM = {
    'stem.0.conv': 'conv1.0',
    'stem.0.bn': 'conv1.1',
    'stem.1.conv': 'conv1.3',
    'stem.1.bn': 'conv1.4',
    'stem.2.conv': 'conv1.6',
    'stem.2.bn': 'bn1',
}
# Blocks of each stage by depth; bottlenecks from depth 50 on. 200 is Google's alone.
BLOCKS: dict[int, tuple[int, ...]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
DEPTHS = {(depth >= 50, blocks): depth for depth, blocks in BLOCKS.items() if depth < 200}


@dataclass(frozen=True)
class ResNetShape:
    """The shape of a ResNet, read from its tensors."""

    blocks: tuple[int, ...]  # in each of the four stages
    bottleneck: bool  # blocks of three convolutions, with four times `planes` channels
    stem: int  # channels of the stem
    stem_kernel: int  # side of its first kernel in pixels: 7, or 3 for small images
    deep_stem: bool  # a stem of three convolutions
    planes: int  # width of the first stage in torchvision's sense; 64 in ResNet-50
    groups: int  # of the 3x3 convolutions; 1 except in ResNeXt
    group_width: int  # torchvision's `width_per_group`; 64 except in wide ResNets and ResNeXt
    avg_down: bool  # shortcuts with an average pool, as in ResNet-D

    @property
    def depth(self) -> int | None:
        """50 in ResNet-50. None if no ResNet of the papers has these blocks."""
        return DEPTHS.get((self.bottleneck, self.blocks))


def resnet_shape(state: Mapping[str, Tensor], source: str) -> ResNetShape:
    """Read the shape of a ResNet from a backbone's state_dict, keys without prefix.

    Raises:
        CheckpointError: The tensors are not those of a ResNet with batch norm and four stages.
    """
    others = [key for key in state if not _RESNET_KEY.fullmatch(key)]
    blocks = tuple(
        len({key.split('.')[1] for key in state if key.startswith(f'layer{stage}.')})
        for stage in '1234'
    )
    if others or 0 in blocks:
        reason = f'{others[0]} is none of its keys' if others else 'a stage is missing'
        raise CheckpointError(
            f'{source} holds no ResNet with batch norm and four stages ({reason}): '
            'export it to mmpretrain, onnx or safetensors'
        )
    stem = state['stem.0.conv.weight' if 'stem.0.conv.weight' in state else 'conv1.weight']
    second = state['layer1.0.conv2.weight']
    bottleneck = 'layer1.0.conv3.weight' in state
    last = state[f'layer1.0.conv{3 if bottleneck else 2}.weight']
    planes = last.shape[0] // (4 if bottleneck else 1)
    middle = state['layer1.0.conv1.weight'].shape[0]
    groups = middle // second.shape[1]
    return ResNetShape(
        blocks=blocks,
        bottleneck=bottleneck,
        stem=state['layer1.0.conv1.weight'].shape[1],
        stem_kernel=stem.shape[-1],
        deep_stem='stem.0.conv.weight' in state,
        planes=planes,
        groups=groups,
        group_width=64 * middle // (planes * groups),
        avg_down=_is_averaged(state, 'layer2.0.'),
    )


def timm_keys(state: Mapping[str, Tensor]) -> dict[str, str]:
    """timm's names of a ResNet's tensors, by ours.

    torchvision uses the same names for its ResNets, without deep stem and average pool.
    """
    averaged = any(_is_averaged(state, f'layer{stage}.0.') for stage in '234')
    names = {}
    for key in state:
        module, _, tensor = key.rpartition('.')
        block, shortcut, place = module.rpartition('downsample.')
        if shortcut and averaged and not _is_averaged(state, block):
            # With stride 1 mmpretrain has no pool, timm an identity in its place.
            module = f'{block}downsample.{int(place) + 1}'
        names[key] = f'{TIMM_STEM.get(module, module)}.{tensor}'
    return names


def _is_averaged(state: Mapping[str, Tensor], block: str) -> bool:
    """Whether the shortcut's convolution is its second module, after a pool."""
    weight = state.get(f'{block}downsample.1.weight')
    return weight is not None and weight.ndim == 4
