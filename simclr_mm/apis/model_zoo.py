"""Models by name: this package's entries in mmpretrain's hub."""

import copy
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import DATASETS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

from simclr_mm.checkpoints import load_state, trusting
from simclr_mm.checkpoints.foreign.weights import WeightsFor, read_weights, weights_for
from simclr_mm.errors import CheckpointError, UserError

# Configs, tools and model index: links in a checkout, files in an installed package.
_MIM = Path(__file__).resolve().parents[1] / '.mim'


@cache
def register() -> tuple[str, ...]:
    """Enter our models into mmpretrain's hub, once.

    Returns:
        Their names, sorted. mmpretrain's ``get_model``, ``list_models`` and inferencers
        know them from now on.
    """
    before = set(ModelHub._models_dict)
    ModelHub.register_model_index(_MIM / 'model-index.yml', config_prefix=_MIM)
    return tuple(sorted(set(ModelHub._models_dict) - before))


def list_models(pattern: str | None = None) -> list[str]:
    """Names of this package's models, for :func:`get_model`.

    Args:
        pattern: With wildcards as in ``fnmatch``, such as ``'*cifar10'``. None: all.

    Returns:
        Names, sorted.
    """
    return [name for name in register() if fnmatch(name, pattern or '*')]


def get_model(
    model: str | Path | Config,
    pretrained: bool | str | Path = False,
    device: str | torch.device | None = None,
    trust_checkpoint: bool = False,
    **kwargs,
) -> BaseModel:
    """Build a model in eval mode.

    Args:
        model: A name out of :func:`list_models` or mmpretrain's, the path of a config
            (``.py``), or a Config.
        pretrained: True for the published weights of the entry; a path or URL for other
            weights, those of another library included, whose mean and std the model's
            preprocessing then gets; False for random ones.
        device: Where to put it. None: the CPU.
        trust_checkpoint: Let the file run code, in this call only; for files whose
            author you trust as you trust a program.
        **kwargs: Override keys of the config's ``model`` dict. A dict with another
            ``type`` takes the place of the config's: ``backbone=dict(type=
            'VisionTransformer', arch='small')``. ``head=None`` or ``neck=None`` removes
            the part, and its weights are left out.

    Returns:
        The model. SimCLR's ``extract_feat(images)`` gives (n, C) for images (n, 3, S,
        S) in normalised RGB; :func:`simclr_mm.inference_model` takes pictures.

    Raises:
        ValueError: no such name, device, or published weights, or backbone=None.
        CheckpointError: the weights cannot be read, or a key does not fit.

    Differs: mmpretrain's ``get_model`` ignores keys that do not fit, and returns random
    weights with a warning where there are none.
    """
    config, metainfo = find_config(model)
    if pretrained is True:
        pretrained = metainfo.weights if metainfo else config.get('load_from')
        if not pretrained:
            raise UserError(
                f'{model if metainfo else "the config"} has no published weights: pass '
                f'pretrained=PATH, or take one of {", ".join(_published())}'
            )
    removed = _override(config, kwargs)
    config.model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        built = MMPRETRAIN_MODELS.build(config.model)
        dataset_meta = _dataset_meta(config)
    if pretrained:
        with trusting(trust_checkpoint):
            dataset_meta = _load(built, str(pretrained), removed) or dataset_meta
    # What mmpretrain's inferencers read.
    built._config, built._metainfo, built._dataset_meta = config, metainfo, dataset_meta
    return put_on(built, device or 'cpu').eval()


def put_on(model: BaseModel, device: str | torch.device) -> BaseModel:
    """Move a model.

    Raises:
        ValueError: this machine has no such device; the model is where it was.
    """
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # without and with CUDA's libraries
        reason = str(error).splitlines()[0]
        raise UserError(f'there is no device {device} here ({reason})') from error
    return model.to(device)


def find_config(model: str | Path | Config) -> tuple[Config, Any | None]:
    """The config, ours to change, and the hub's entry if a name was given."""
    if isinstance(model, Config):
        return copy.deepcopy(model), None
    if Path(model).suffix == '.py':
        return Config.fromfile(model), None
    register()
    ModelHub._register_mmpretrain_models()
    if not ModelHub.has(str(model).lower()):
        close = get_close_matches(str(model).lower(), register(), n=3, cutoff=0.4)
        raise UserError(
            f'no model is named {model}; '
            + (f'close names: {", ".join(close)}' if close else 'list_models() has them')
        )
    metainfo = ModelHub.get(model)
    return metainfo.config, metainfo


def _override(config: Config, changes: dict[str, Any]) -> list[str]:
    """Merge changes into the model's settings; the names of the parts set to None."""
    if 'backbone' in changes and changes['backbone'] is None:
        raise UserError(
            'backbone=None: a model is nothing without one. head=None and neck=None '
            'remove parts; another backbone is backbone=dict(type=..., ...)'
        )
    changes = dict(changes)
    for key, value in changes.items():
        before = config.model.get(key)
        if (
            isinstance(value, dict)
            and isinstance(before, dict)
            and _class_name(value.get('type', before.get('type'))) != _class_name(before['type'])
        ):
            changes[key] = dict(value, _delete_=True)
    if changes:
        config.merge_from_dict(dict(model=changes))
    return [key for key, value in changes.items() if value is None]


def _class_name(of_type: str | type) -> str:
    return str(getattr(of_type, '__name__', of_type)).split('.')[-1]


def _published() -> list[str]:
    return [name for name in register() if ModelHub._models_dict[name].weights]


def _dataset_meta(config: Config) -> dict[str, Any]:
    """What the class of the test set knows by itself, such as ImageNet's classes."""
    loader = config.get('test_dataloader')
    if not loader:
        return {}
    return getattr(DATASETS.get(loader.dataset.type), 'METAINFO', {})


def _load(model: BaseModel, path: str, removed: list[str]) -> dict[str, Any]:
    """Load weights strictly; return what the file says about its classes.

    Weights of removed parts are left out, with a line in the log.
    """
    checkpoint = read_weights(path)
    weights = weights_for(model.state_dict(), checkpoint, path)
    _check_needs(model, weights, path)
    state = weights.state
    left_out = [key for key in state if key.split('.')[0] in removed]
    if left_out:
        print_log(f'{path}: left out {len(left_out)} weights of {", ".join(removed)}')
        state = {key: value for key, value in state.items() if key not in left_out}
    missing = [key for key in model.state_dict() if key not in state]
    is_pretraining = any(key.startswith('neck.') for key in state)
    if missing and is_pretraining and all(key.startswith('head.') for key in missing):
        raise CheckpointError(
            f'{path} is a pretraining checkpoint and lacks {", ".join(missing)}: train '
            f'the head with tools/train.py CONFIG --pretrained {path}, or load it into '
            'the SimCLR model it was made with'
        )
    load_state(model, state, path)
    for key, value in (weights.normalise or {}).items():
        buffer = getattr(model.data_preprocessor, key)
        buffer.copy_(torch.tensor(value).view_as(buffer))
    if weights.note:
        print_log(weights.note)
    meta = checkpoint.get('meta')
    if not isinstance(meta, dict):
        return {}
    if 'CLASSES' in meta:  # mmcls 0.x
        return dict(classes=meta['CLASSES'])
    return meta.get('dataset_meta') or {}


def _check_needs(model: BaseModel, weights: WeightsFor, path: str) -> None:
    """Refuse a model that computes something else than what the weights were trained in."""
    scope, _, name = ((weights.backbone or {}).get('type') or '').rpartition('.')
    if scope and type(model.backbone).__name__ != name:
        raise CheckpointError(
            f'{path} needs a backbone that pads as its own did: pass '
            f'backbone={weights.backbone} to get_model'
        )
    for key, value in (weights.normalise or {}).items():
        if getattr(model.data_preprocessor, key, None) is None:
            raise CheckpointError(
                f'{path} needs data_preprocessor.{key}={value}, and '
                'the model does not normalise: set it in the config'
            )
