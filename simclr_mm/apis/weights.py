"""Load the weights of a checkpoint strictly, with conversion of other libraries' keys."""

import re
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import nn

from simclr_mm.checkpoints import backbone_state, has_keys, load_state, model_state, read_checkpoint
from simclr_mm.checkpoints.foreign.weights import WeightsFor, read_weights, weights_for
from simclr_mm.errors import CheckpointError

_TENSORFLOW = re.compile(r'\.index|\.data-')  # in the names of a checkpoint's files


def read(source: str) -> Any:
    """Load a checkpoint. TensorFlow's consist of several files."""
    path = Path(source).expanduser()
    is_one_file = '://' in source or (path.is_file() and not _TENSORFLOW.search(path.name))
    return read_checkpoint(source) if is_one_file else read_weights(source)


def load(model: BaseModel, content: Any, source: str, removed: list[str]) -> None:
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
            f'{source} is a pretraining checkpoint and lacks {", ".join(missing)}: train '
            f'the head with tools/train.py CONFIG --pretrained {source}, or load it into '
            'its own SimCLR model'
        )
    _load_into(model, model, weights._replace(state=state), source)


def load_backbone(model: BaseModel, content: Any, source: str) -> None:
    """Load the backbone's weights strictly. The file may hold other weights."""
    weights = _weights(model, content, source)
    state = backbone_state(weights.state, source=source)
    _load_into(model, model.backbone, weights._replace(state=state), source)


def _weights(model: BaseModel, content: Any, source: str) -> WeightsFor:
    """The weights of a checkpoint for a model. The model's own keys need no conversion."""
    meta = content.get('meta') if isinstance(content, dict) else None
    converted = isinstance(meta, dict) and 'normalise' in meta  # by tools/convert.py
    if not converted and has_keys(content, model.state_dict()):
        return WeightsFor(model_state(content, source))
    return weights_for(model.state_dict(), content, source)


def _load_into(model: BaseModel, part: nn.Module, weights: WeightsFor, source: str) -> None:
    """Load weights into a part of a model, and the pixels that they need into the model."""
    scope, _, name = ((weights.backbone or {}).get('type') or '').rpartition('.')
    if scope and type(model.backbone).__name__ != name:
        raise CheckpointError(
            f'{source} needs its own type of backbone: pass '
            f'backbone={weights.backbone} to get_model'
        )
    for key, value in (weights.normalise or {}).items():
        if getattr(model.data_preprocessor, key, None) is None:
            raise CheckpointError(
                f'{source} needs data_preprocessor.{key}={value}, and the model does not '
                'normalise: set it in the config'
            )
    load_state(part, weights.state, source)
    for key, value in (weights.normalise or {}).items():
        buffer = getattr(model.data_preprocessor, key)
        buffer.copy_(torch.tensor(value).view_as(buffer))
    if weights.note:
        print_log(weights.note)
