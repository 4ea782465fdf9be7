"""Build a model from a name, a config or a checkpoint, and load its weights strictly."""

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import nn

from simclr_mm.checkpoints import (
    backbone_state,
    has_keys,
    load_state,
    load_weights,
    meta_of,
    model_state,
    trusting,
)
from simclr_mm.checkpoints.foreign.weights import Conversion, read_weights, weights_for
from simclr_mm.checkpoints.stored_config import config_of
from simclr_mm.engine.arguments import check_arguments
from simclr_mm.engine.config_errors import building_from
from simclr_mm.errors import CheckpointError, UserError
from simclr_mm.files.storage import file_name
from simclr_mm.models.views_preprocessor import ViewsPreprocessor
from simclr_mm.registry import type_name

from .encoder import Encoder, pipeline_of
from .model_zoo import find_config, published_weights, register, weights_of

_TIME = re.compile(r'_\d{8}_\d{6}$')  # MMEngine's name of a run: config_date_time
_TRAINED_ON = ('neck', 'head', 'online_probe')  # parts that features do not need


class Checkpoint(NamedTuple):
    """The content of a checkpoint, and the config that its model is built from."""

    content: Any  # what the file holds
    config: Config  # config of the model; whoever opened the checkpoint may change it
    name: str  # of the config, or else of the file
    source: str  # path or URL of the file; '' if there is none
    entry: Any = None  # entry in mmpretrain's hub, for a model with a name


def get_model(
    model: str | Path | Config,
    pretrained: bool | str | Path = False,
    device: str | torch.device | None = None,
    trust_checkpoint: bool = False,
    **kwargs,
) -> BaseModel:
    """Build a model in eval mode.

    Args:
        model: A name from :func:`list_models` or mmpretrain's, the path of a config
            (``.py``), or a Config.
        pretrained: True for the published weights of the model; a path or URL for other
            weights; False for random ones. With weights of another library the model's
            preprocessing gets the mean and std of that library.
        device: Device of the model. None: the CPU.
        trust_checkpoint: Let the file run code, in this call only. Trust its author as
            you trust the author of a program.
        **kwargs: Override keys of the config's ``model`` dict. A dict with another
            ``type`` replaces the config's dict: ``backbone=dict(type=
            'VisionTransformer', arch='small')``. ``head=None`` or ``neck=None`` removes
            the part and its weights.

    Returns:
        The model. SimCLR's ``extract_feat(images)`` gives (n, C) for images (n, 3, S,
        S) in normalised RGB. :func:`simclr_mm.inference_model` takes image files.

    Raises:
        UserError: No such name, device, or published weights, or backbone=None.
        CheckpointError: The weights cannot be read, or a key does not fit.

    Differs: mmpretrain's ``get_model`` ignores keys that do not fit, and returns random
    weights with a warning if there are no published ones.
    """
    return build_encoder(model, pretrained, device, trust_checkpoint, **kwargs).model


def build_encoder(
    model: str | Path | Config,
    pretrained: bool | str | Path = False,
    device: str | torch.device | None = None,
    trust_checkpoint: bool = False,
    **kwargs,
) -> Encoder:
    """:func:`get_model`, with the config and the origin of the model."""
    config, entry = find_config(model)
    if pretrained == '':
        raise UserError('pretrained is empty: give a path, a URL or True, or False for no weights')
    if pretrained is True:
        pretrained = published_weights(model, config, entry)
    source = weights_of(pretrained) if pretrained else ''
    name = entry.name if entry else Path(config.filename or '').stem
    with trusting(trust_checkpoint):
        content = _read(source) if source else None
    with building_from(config) if kwargs else nullcontext():
        encoder = _build(Checkpoint(content, config, name, source, entry), kwargs)
    return encoder.on(device)


def load_encoder(
    checkpoint: str | Path,
    config: str | Path | Config | None = None,
    device: str | torch.device | None = None,
) -> Encoder:
    """Build the model of a checkpoint and load its weights.

    Args:
        checkpoint: A path or URL, or a name with published weights.
        config: A config, its file or a model name. None: the config that MMEngine
            stored in the checkpoint.
        device: Device of the model. None: the CPU.

    Returns:
        The encoder. Its ``model`` is as from :func:`simclr_mm.get_model`.

    Raises:
        CheckpointError: The checkpoint cannot be read, does not fit, or holds no config
            and none is given.
        UserError: ``config`` is no name and no file.
    """
    return encoder_of_checkpoint(open_checkpoint(str(checkpoint), config), device)


def open_checkpoint(checkpoint: str, config: str | Path | Config | None = None) -> Checkpoint:
    """Read a checkpoint, and find its config; the arguments are those of :func:`load_encoder`."""
    source = weights_of(checkpoint)
    if config is None and checkpoint.lower() in register():
        config = checkpoint
    content = _read(source)
    if config is not None:
        found, entry = find_config(config)
        name = found.filename if isinstance(config, Config) else config
        return Checkpoint(content, found, Path(name or '').stem, source, entry)
    found = config_of(content, checkpoint)
    run = str(content['meta'].get('experiment_name') or Path(file_name(checkpoint)).stem)
    # Files get this name, so it must not contain a folder.
    return Checkpoint(content, found, _TIME.sub('', Path(run).name), source)


def encoder_of_checkpoint(
    checkpoint: Checkpoint, device: str | torch.device | None = None, only_backbone: bool = False
) -> Encoder:
    """Build the model of a checkpoint, and load its weights.

    ``only_backbone`` leaves out neck, head and probe, and their weights.

    Raises:
        CheckpointError: The config builds no model, or a weight does not fit.
    """
    try:
        encoder = _build(checkpoint, {}, only_backbone)
    except CheckpointError:
        raise
    except Exception as error:  # classes raise errors of many types for wrong arguments
        raise CheckpointError(
            f'{checkpoint.source}: no model can be built from its config '
            f'({type(error).__name__}: {error}); name another with --config'
        ) from error
    return encoder.on(device)


def encoder_of(
    model: Encoder | BaseModel | str | Path | Config, pretrained: bool | str | Path = True, **kwargs
) -> Encoder:
    """The encoder around a model from ``get_model``, or a new one by :func:`build_encoder`."""
    if isinstance(model, Encoder):
        return model
    if not isinstance(model, BaseModel):
        return build_encoder(model, pretrained, **kwargs)
    config = getattr(model, '_config', None)
    if config is None:
        raise UserError(
            'the model has no config that says how to prepare a picture: build it with get_model'
        )
    classes = (getattr(model, '_dataset_meta', None) or {}).get('classes')
    return Encoder(model, config, classes=classes, pipeline=pipeline_of(config))


def _build(checkpoint: Checkpoint, changes: dict[str, Any], only_backbone: bool = False) -> Encoder:
    content, config, name, source, entry = checkpoint
    _override(config, changes)
    config.model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    settings = config.model
    if only_backbone:  # a copy, because the config records how the encoder was trained
        settings = {key: None if key in _TRAINED_ON else settings[key] for key in settings}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MMPRETRAIN_MODELS.build(settings)
        dataset_meta = _dataset_meta(config)
    parts = content if isinstance(content, dict) else {}
    if only_backbone:
        weights = _weights(model, content, source)
        state = backbone_state(weights.state, source=source)
        _load_into(model, model.backbone, replace(weights, state=state), source)
    elif source:
        _load(model, content, source, [key for key, value in changes.items() if value is None])
        dataset_meta = _classes_in(meta_of(content)) or dataset_meta
    # mmpretrain's inferencers read these attributes; in this package only encoder_of does.
    model._config, model._metainfo, model._dataset_meta = config, entry, dataset_meta
    return Encoder(
        model.eval(),
        config,
        name,
        source,
        dataset_meta.get('classes'),
        {key: parts[key] for key in ('meta', 'message_hub') if key in parts},
        pipeline_of(config),
    )


def _override(config: Config, changes: dict[str, Any]) -> None:
    """Merge changes into the model's settings."""
    if changes.get('backbone', {}) is None:
        raise UserError(
            'backbone=None: a model needs a backbone. head=None and neck=None '
            'remove parts; another backbone is backbone=dict(type=..., ...)'
        )
    merged = {}
    for key, value in changes.items():
        before = config.model.get(key)
        both = isinstance(value, dict) and isinstance(before, dict)
        if both and 'type' in value and type_name(value) != type_name(before):
            value = dict(value, _delete_=True)
        merged[key] = value
    if merged:
        config.merge_from_dict(dict(model=merged))
        check_arguments(config.model, 'model')


def _dataset_meta(config: Config) -> dict[str, Any]:
    """METAINFO of the test dataset's class, such as ImageNet's classes."""
    loader = config.get('test_dataloader')
    if not loader:
        return {}
    dataset = loader.dataset.type
    dataset = DATASETS.get(dataset) if isinstance(dataset, str) else dataset
    return getattr(dataset, 'METAINFO', {})


def _classes_in(meta: dict[str, Any]) -> dict[str, Any]:
    """The dataset's metainfo in the ``meta`` of a checkpoint."""
    if 'CLASSES' in meta:  # mmcls 0.x
        return dict(classes=meta['CLASSES'])
    return meta.get('dataset_meta') or {}


def _read(source: str) -> Any:
    """Load a checkpoint. The direct way is for one file of PyTorch."""
    path = Path(source).expanduser()
    is_one_file = path.suffix == '.pth' and path.is_file()
    return load_weights(path) if is_one_file else read_weights(source)


def _weights(model: BaseModel, content: Any, source: str) -> Conversion:
    """The weights of a checkpoint for a model. The model's own keys need no conversion."""
    expected = model.state_dict()
    converted = 'normalise' in meta_of(content)  # by simclr-mm convert
    if not converted and has_keys(content, expected):
        return Conversion(state=dict(model_state(content, source)))
    return weights_for(expected, content, source)


def _load(model: BaseModel, content: Any, source: str, removed: list[str]) -> None:
    """Load weights strictly. Those of removed parts are left out, with a log line."""
    weights = _weights(model, content, source)
    state = weights.state
    left_out = [key for key in state if key.split('.')[0] in removed]
    if left_out:
        print_log(f'{source}: left out {len(left_out)} weights of {", ".join(removed)}')
        state = {key: value for key, value in state.items() if key not in left_out}
    missing = [key for key in model.state_dict() if key not in state]
    is_pretraining = any(key.startswith('neck.') for key in state)
    if missing and is_pretraining and all(key.startswith('head.') for key in missing):
        raise CheckpointError(
            f'{source} is of pretraining and lacks {", ".join(missing)}: train the head with '
            f'simclr-mm train CONFIG --pretrained {source}, or load it into its own SimCLR model'
        )
    _load_into(model, model, replace(weights, state=state), source)


def _load_into(model: BaseModel, part: nn.Module, weights: Conversion, source: str) -> None:
    """Load weights into a part of a model, and the pixels that they need into the model."""
    scope, _, name = weights.backbone.get('type', '').rpartition('.')
    if scope and type(model.backbone).__name__ != name:
        raise CheckpointError(
            f'{source} needs its own type of backbone: pass '
            f'backbone={weights.backbone} to get_model'
        )
    for key, value in weights.normalise.items():
        if len(getattr(model.data_preprocessor, key, ())) != len(value):
            raise CheckpointError(
                f'{source} needs data_preprocessor.{key}={value}: set it in the config'
            )
    load_state(part, weights.state, source)
    if isinstance(model.data_preprocessor, ViewsPreprocessor) and weights.normalise:
        model.data_preprocessor.set_statistics(**weights.normalise)
    else:
        for key, value in weights.normalise.items():
            buffer = getattr(model.data_preprocessor, key)
            buffer.copy_(torch.tensor(value).view_as(buffer))
    if weights.layout:
        print_log(
            f'{source}: keys of {weights.layout}; {len(weights.names)} used, {len(weights.left)} '
            f'left, {len(weights.filled)} filled; simclr-mm convert lists them'
        )
