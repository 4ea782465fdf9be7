"""A foreign checkpoint's weights under our keys, with the config that they need."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simclr_mm.checkpoints import (
    backbone_state,
    has_keys,
    meta_of,
    model_state,
    read_checkpoint,
    require_finite,
)
from simclr_mm.errors import CheckpointError
from simclr_mm.files.storage import is_url

from .layouts import layout_of
from .renaming import Conversion, from_google, to_our_keys
from .resnet_shape import DEPTHS, resnet_shape
from .tensor_bundle import bundle_prefix, read_bundle

_STEMS = dict(solo='simclr_mm.SoloResNet', lightly='simclr_mm.LightlyResNet')


def read_weights(path: str) -> Any:
    """Load a PyTorch checkpoint, or the variables of a TensorFlow checkpoint.

    The path of the latter is NAME, NAME.index or their folder.

    Raises:
        CheckpointError: It cannot be read, or holds weights that are not finite.
    """
    if not _is_tensorflow(path):
        return read_checkpoint(path)
    values = read_bundle(bundle_prefix(path))
    arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
    require_finite({key: torch.from_numpy(value) for key, value in arrays.items()}, path)
    return values


def foreign_weights(loaded: Any, source: str) -> Conversion:
    """Recognise a checkpoint of :func:`read_weights` and rename its keys.

    Raises:
        CheckpointError: Its keys are of no known library, or neither mmpretrain nor this
            package has its network.
    """
    try:
        if _is_bundle(loaded, source):
            return from_google(loaded, source)
        conversion = to_our_keys(loaded, source)
        conversion.backbone = _backbone(conversion, source)
        return conversion
    except CheckpointError:
        raise
    except Exception as error:  # known keys may hold tensors of any shape
        raise CheckpointError(
            f'{source}: its keys are known, but its tensors do not fit them '
            f'({type(error).__name__}: {str(error)[:200]})'
        ) from error


def weights_for(expected: Iterable[str], loaded: Any, source: str) -> Conversion:
    """The weights of a checkpoint of :func:`read_weights` for a model with the expected keys.

    ``layout`` of the result is '' for keys of ours, of mmselfsup and of mmpretrain.

    Raises:
        CheckpointError: It holds no weights, or a damaged ``meta``.
    """
    if not _is_bundle(loaded, source):
        needs = _stored_needs(loaded, source)
        layout = None if has_keys(loaded, expected) else layout_of(loaded)
        if layout is None:
            return Conversion(state=dict(model_state(loaded, source)), **needs)
        if layout == 'mmpretrain':
            return Conversion(state=to_our_keys(loaded, source).state, **needs)
    return foreign_weights(loaded, source)


def _is_tensorflow(path: str) -> bool:
    return not is_url(path) and bool(bundle_prefix(path))


def _is_bundle(loaded: Any, source: str) -> bool:
    """Whether these are TensorFlow's variables, and not yet a checkpoint made from them."""
    return _is_tensorflow(source) and any(isinstance(each, np.ndarray) for each in loaded.values())


def _stored_needs(loaded: Any, source: str) -> dict[str, Any]:
    """Backbone and normalisation that simclr-mm convert stored in a checkpoint."""
    meta = meta_of(loaded)
    if 'normalise' not in meta:
        return {}
    try:
        backbone = dict(meta['backbone'], type=str(meta['backbone']['type']))
        normalise = {}
        for key in ('mean', 'std'):
            normalise[key] = [float(value) for value in meta['normalise'][key]]
        if len(normalise['mean']) != len(normalise['std']):
            raise ValueError('mean and std are not for the same bands')
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f'{source}: its meta is not what simclr-mm convert writes: convert it again'
        ) from error
    return dict(backbone=backbone, normalise=normalise)


def _backbone(conversion: Conversion, source: str) -> dict[str, Any]:
    """The backbone's config, from names and shapes of its tensors."""
    shape = resnet_shape(backbone_state(conversion.state, source=source), source)
    if shape.depth is None or shape.groups > 1:
        raise CheckpointError(
            f'{source}: its encoder has stages of {shape.blocks} blocks and {shape.groups} groups; '
            f'ResNets of depth {", ".join(map(str, DEPTHS.values()))} with one group are known'
        )
    small = shape.stem_kernel == 3 and not shape.deep_stem
    name = _STEMS.get(conversion.stem, 'ResNet_CIFAR') if small else 'ResNet'
    middle = shape.planes * shape.group_width // 64
    last = shape.planes * (4 if shape.bottleneck else 1)
    settings = dict(
        stem_channels=(shape.stem, 64),
        base_channels=(middle, 64),
        expansion=(last // middle, 4 if shape.bottleneck else 1),
        deep_stem=(shape.deep_stem, False),
        avg_down=(shape.avg_down, False),
    )
    unusual = {key: value for key, (value, usual) in settings.items() if value != usual}
    return dict(type=name, depth=shape.depth, **unusual)


def neck_config(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The ``neck`` of a config for the projection head in a state_dict, if any."""
    widths = [
        len(value)
        for key, value in state.items()
        if key.startswith('neck.fc') and key.endswith('.weight')
    ]
    if not widths:
        return None
    neck = dict(type='simclr_mm.ProjectionNeck', num_layers=len(widths), out_channels=widths[-1])
    if len(widths) > 1:
        neck['hid_channels'] = widths[0]
    if 'neck.bn0.weight' not in state:
        neck['norm_cfg'] = None
    return neck
