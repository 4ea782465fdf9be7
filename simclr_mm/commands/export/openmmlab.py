"""Backbones as mmpretrain, mmdet and mmseg take them.

mmdet and mmseg need not be installed to verify: they read ``init_cfg`` by MMEngine's
loader, as mmpretrain does, and their ResNet has the keys of mmpretrain's. Every other
backbone they take from mmpretrain itself, by its scope.
"""

from typing import Any

import numpy as np
import torch
from mmengine.model import ImgDataPreprocessor, initialize
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor

from simclr_mm.apis.inference import pooled
from simclr_mm.errors import UserError

from .source import Source

# Arguments that the ResNet of mmdet and mmseg shares with mmpretrain's.
_SHARED = {
    'type',
    'depth',
    'stem_channels',
    'base_channels',
    'num_stages',
    'strides',
    'dilations',
    'style',
    'avg_down',
    'norm_cfg',
    'zero_init_residual',
}


def mmpretrain_tensors(source: Source) -> dict[str, Tensor]:
    """The tensors as in every checkpoint of mmpretrain."""
    return {f'backbone.{key}': value for key, value in source.state.items()}


def plain_tensors(source: Source) -> dict[str, Tensor]:
    """The tensors of a bare backbone."""
    return dict(source.state)


def mmpretrain_setup(source: Source, path: str) -> str:
    """Code that makes ``model``, and a config that trains on."""
    backbone = dict(source.backbone)
    backbone['type'] = backbone['type'].removeprefix('mmpretrain.')
    neck = ', neck=dict(type="GlobalAveragePooling")' if _is_map(source) else ''
    return '\n'.join(
        [
            'from mmengine.config import Config',
            'from mmpretrain import FeatureExtractor, get_model',
            f'backbone = {call(backbone)}',
            'config = dict(',
            f'    model=dict(type="ImageClassifier", backbone=backbone{neck}),',
            f'    data_preprocessor=dict({source.preprocessing.openmmlab("to_rgb")}),',
            '    test_dataloader=dict(dataset=dict(type="CustomDataset", pipeline=[',
            *(f'        {call(step)},' for step in source.preprocessing.pipeline()),
            '    ])))',
            f'model = get_model(Config(config), pretrained={path!r})',
            '# In a config that trains on it, backbone gets',
            f'init_cfg = dict(\n    type="Pretrained", checkpoint={path!r}, prefix="backbone.")',
        ]
    )


def mmpretrain_run(source: Source, namespace: dict[str, Any], pictures: list[np.ndarray]) -> Tensor:
    """(n, C) of the model, after the config was seen to give the same weights."""
    model, init_cfg = namespace['model'], namespace['init_cfg']
    again = _initialised(dict(namespace['backbone'], init_cfg=init_cfg)).state_dict()
    if not all(torch.equal(again[k], v) for k, v in model.backbone.state_dict().items()):
        raise UserError('init_cfg and get_model load different weights')
    batch = model.data_preprocessor(dict(inputs=_bgr(source, pictures)))
    with torch.no_grad():
        return pooled(model.extract_feat(batch['inputs']))


def mmpretrain_weights(source: Source, namespace: dict[str, Any]) -> dict[str, Tensor]:
    """What the backbone holds."""
    return namespace['model'].backbone.state_dict()


def config_setup(source: Source, path: str) -> str:
    """A config of mmdet or mmseg with this backbone, in ``model``."""
    settings, lines = dict(source.backbone), []
    if settings['type'] == 'mmpretrain.ResNet' and set(settings) <= _SHARED:
        settings['type'] = 'ResNet'
        if 'base_channels' in settings:  # theirs makes the stem as wide
            settings.setdefault('stem_channels', 64)
    else:
        package = settings['type'].split('.')[0]
        lines.append(f'custom_imports = dict(imports=["{package}.models"])')
    settings['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    return '\n'.join(
        [
            *lines,
            'model = dict(',
            f'    data_preprocessor=dict({source.preprocessing.openmmlab("bgr_to_rgb")}),',
            f'    backbone={call(settings)})',
        ]
    )


def config_run(source: Source, namespace: dict[str, Any], pictures: list[np.ndarray]) -> Tensor:
    """(n, C) of the backbone that the config describes."""
    settings = namespace['model']
    namespace['built'] = _initialised(settings['backbone'])
    # The class that mmdet's and mmseg's preprocessors derive from.
    preprocessor = ImgDataPreprocessor(**settings['data_preprocessor'])
    images = preprocessor(dict(inputs=list(_bgr(source, pictures))))['inputs']
    with torch.no_grad():
        return pooled(namespace['built'](images))


def config_weights(source: Source, namespace: dict[str, Any]) -> dict[str, Tensor]:
    """What the backbone holds."""
    return namespace['built'].state_dict()


def call(settings: Any) -> str:
    """Settings as code: ``dict(type='ResNet', depth=50)``."""
    if isinstance(settings, dict) and all(str(key).isidentifier() for key in settings):
        ordered = sorted(settings.items(), key=lambda item: item[0] != 'type')
        return f'dict({", ".join(f"{k}={call(v)}" for k, v in ordered)})'
    return repr(settings)


def _initialised(settings: dict[str, Any]) -> torch.nn.Module:
    backbone = MMPRETRAIN_MODELS.build({'_scope_': 'mmpretrain', **settings})
    # What init_weights does with it, without a line for each tensor.
    initialize(backbone, backbone.init_cfg)
    backbone.eval()
    return backbone


def _bgr(source: Source, pictures: list[np.ndarray]) -> Tensor:
    return source.cropped(pictures).flip(1)


def _is_map(source: Source) -> bool:
    size = source.preprocessing.size
    with torch.no_grad():
        features = source.model.backbone(torch.zeros(1, 3, size, size))
    return (features[-1] if isinstance(features, (tuple, list)) else features).ndim == 4
