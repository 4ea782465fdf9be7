"""Another library's checkpoint: its weights under our keys, and what they need."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor

from simclr_mm.checkpoints import model_state, read_checkpoint, state_problems
from simclr_mm.errors import CheckpointError

from .layouts import layout_of
from .renaming import Conversion, from_google, to_our_keys
from .resnet_keys import resnet_shape
from .tensor_bundle import bundle_prefix, read_bundle

# Of RGB in [0, 255]: ImageNet's mean and std, and pixels in [0, 1].
_IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
_UNIT = dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0])
_STEMS = dict(solo='simclr_mm.SoloResNet', lightly='simclr_mm.LightlyResNet')
_DEPTHS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}


class ForeignWeights(NamedTuple):
    """What a checkpoint gives and asks for.

    Args:
        conversion: Its tensors under our keys, and what became of each key.
        backbone: The ``backbone`` of a config that computes what its network did.
        normalise: ``mean`` and ``std`` of its preprocessing, RGB in [0, 255].
    """

    conversion: Conversion
    backbone: dict[str, Any]
    normalise: dict[str, Sequence[float]]


def read_weights(path: str) -> Any:
    """Load a checkpoint of PyTorch, or the variables of one of TensorFlow.

    Args:
        path: A path or URL; of TensorFlow's files NAME, NAME.index or their folder.

    Raises:
        CheckpointError: it cannot be read.
    """
    if _is_tensorflow(path):
        return read_bundle(bundle_prefix(path))
    return read_checkpoint(path)


def foreign_weights(loaded: Any, path: str) -> ForeignWeights:
    """Recognise a checkpoint and rename its keys.

    Args:
        loaded: From :func:`read_weights`.
        path: Where it came from, for errors.

    Raises:
        CheckpointError: its keys are nobody's, or its network is no ResNet that
            mmpretrain or this package has.
    """
    if _is_tensorflow(path):
        conversion = from_google(loaded, path)
    else:
        conversion = to_our_keys(loaded, path)
    normalise = _UNIT if conversion.unit_range else _IMAGENET
    return ForeignWeights(conversion, _backbone(conversion, path), dict(normalise))


def state_for(model: BaseModel, loaded: Any, path: str) -> Mapping[str, Tensor]:
    """The weights of a checkpoint under the model's keys.

    Where another library made it, or :mod:`.conversion` from another's, the model's
    preprocessing gets the mean and std that go with the weights, and a line in the log
    says what became of the keys.

    Args:
        model: What they are for.
        loaded: From :func:`read_weights`.
        path: Where it came from.

    Raises:
        CheckpointError: it holds no weights, or its network pads otherwise than the
            model's backbone, which no key tells.
    """
    meta = loaded.get('meta') if isinstance(loaded, dict) else None
    if isinstance(meta, dict) and 'normalise' in meta:
        try:
            _prepare(model, meta['backbone'], meta['normalise'], path)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f'{path}: its meta is not what tools/convert.py '
                f'writes ({error!r}): convert it again'
            ) from error
    if not _is_tensorflow(path):
        layout = layout_of(loaded)
        if layout is None or _fits(model, loaded):
            return model_state(loaded, path)
        if layout == 'mmpretrain':
            return to_our_keys(loaded, path).state
    foreign = foreign_weights(loaded, path)
    done = foreign.conversion
    _prepare(model, foreign.backbone, foreign.normalise, path)
    print_log(
        f'{path}: keys of {done.layout}; {len(done.names)} used, {len(done.left)} '
        f'left, {len(done.filled)} filled; tools/convert.py lists them'
    )
    return done.state


def _is_tensorflow(path: str) -> bool:
    return '://' not in path and bool(bundle_prefix(path))


def _fits(model: BaseModel, loaded: Any) -> bool:
    try:
        return not state_problems(model.state_dict(), model_state(loaded, ''))
    except CheckpointError:
        return False


def _prepare(
    model: BaseModel, backbone: dict[str, Any], normalise: dict[str, Sequence[float]], path: str
) -> None:
    """Check what the weights need of a model, and set its preprocessing."""
    scope, _, name = backbone['type'].rpartition('.')
    if scope and type(model.backbone).__name__ != name:
        raise CheckpointError(
            f'{path} needs a backbone that pads as its own did: pass '
            f'backbone={backbone} to get_model'
        )
    for key, value in normalise.items():
        buffer = getattr(model.data_preprocessor, key, None)
        if buffer is None:
            raise CheckpointError(
                f'{path} needs data_preprocessor.{key}={value}, and '
                'the model does not normalise: set it in the config'
            )
        buffer.copy_(torch.tensor(value).view_as(buffer))


def _backbone(conversion: Conversion, source: str) -> dict[str, Any]:
    """The backbone's config, as names and shapes of its tensors tell it."""
    if conversion.google:
        return dict(type='simclr_mm.GoogleResNet', **conversion.google)
    prefix = 'backbone.'
    shape = resnet_shape(
        {
            key[len(prefix) :]: tensor
            for key, tensor in conversion.state.items()
            if key.startswith(prefix)
        },
        source,
    )
    depth = _DEPTHS.get((shape.blocks, shape.bottleneck))
    if depth is None or shape.groups > 1:
        raise CheckpointError(
            f'{source}: its encoder has stages of {shape.blocks} blocks and '
            f'{shape.groups} groups; ResNets of depth '
            f'{", ".join(map(str, _DEPTHS.values()))} with one group are known'
        )
    small = shape.stem_kernel == 3 and not shape.deep_stem
    name = _STEMS.get(conversion.stem, 'ResNet_CIFAR') if small else 'ResNet'
    middle = shape.planes * shape.group_width // 64
    last = shape.planes * (4 if shape.bottleneck else 1)
    settings = dict(
        stem_channels=shape.stem,
        base_channels=middle,
        expansion=last // middle,
        deep_stem=shape.deep_stem,
        avg_down=shape.avg_down,
    )
    usual = dict(
        stem_channels=64,
        base_channels=64,
        expansion=4 if shape.bottleneck else 1,
        deep_stem=False,
        avg_down=False,
    )
    unusual = {key: value for key, value in settings.items() if value != usual[key]}
    return dict(type=name, depth=depth, **unusual)


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
