"""Export backbones for mmpretrain, mmdet and mmseg.

Verifying needs neither mmdet nor mmseg. Like mmpretrain they read ``init_cfg`` with
MMEngine's loader, and their ResNet has mmpretrain's keys. Every other backbone comes from
mmpretrain itself, by its scope.
"""

from typing import Any

import numpy as np
import torch
from mmengine.model import ImgDataPreprocessor, initialize
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor

from simclr_mm.apis.encoder import Encoder
from simclr_mm.errors import UserError
from simclr_mm.models import pooled

from .backbone import cropped, settings_of, tensors_of
from .target import Names, Target, code, literal

# Arguments that the ResNet of mmdet and mmseg shares with mmpretrain's.
_SHARED = set(
    'type depth stem_channels base_channels num_stages strides dilations style avg_down '
    'norm_cfg zero_init_residual'.split()
)


class MMPretrain(Target):
    """The tensors with the keys of mmpretrain's checkpoints."""

    use = 'features = FeatureExtractor(model)(bgr)[0]  # a path, or a uint8 BGR array'
    use_of_bands = 'features = FeatureExtractor(model)(values)[0]  # an array, as in the file'

    def tensors(self, encoder: Encoder) -> dict[str, Tensor]:
        return {f'backbone.{key}': value for key, value in tensors_of(encoder).items()}

    def setup(self, encoder: Encoder, path: str) -> str:
        """Code that builds ``model``, and a config for training from it."""
        backbone, preprocessing = settings_of(encoder), encoder.preprocessing
        backbone['type'] = backbone['type'].removeprefix('mmpretrain.')
        neck = (
            ', neck=dict(type="GlobalAveragePooling")' if len(encoder.feature_shape()) == 4 else ''
        )
        bands = preprocessing.loading is not None
        return code(
            *['import simclr_mm  # for LoadBands'] * bands,
            'from mmengine.config import Config',
            'from mmpretrain import FeatureExtractor, get_model',
            f'backbone = {literal(backbone)}',
            'config = dict(',
            f'    model=dict(type="ImageClassifier", backbone=backbone{neck}),',
            f'    data_preprocessor=dict({preprocessing.openmmlab("to_rgb")}),',
            '    test_dataloader=dict(dataset=dict(type="CustomDataset", pipeline=[',
            *(f'        {literal(step)},' for step in preprocessing.pipeline()),
            '    ])))',
            f'model = get_model(Config(config), pretrained={path!r})',
            '# In a config that trains on it, backbone gets',
            f'init_cfg = dict(\n    type="Pretrained", checkpoint={path!r}, prefix="backbone.")',
        )

    def weights(self, encoder: Encoder, names: Names) -> dict[str, Tensor]:
        """The model's weights, after a check that the config gives the same."""
        weights = names['model'].backbone.state_dict()
        again = _initialised(dict(names['backbone'], init_cfg=names['init_cfg'])).state_dict()
        if not all(torch.equal(again[key], value) for key, value in weights.items()):
            raise UserError('init_cfg and get_model load different weights')
        return weights


class Detection(Target):
    """The tensors of the bare backbone, for a config of mmdet or mmseg."""

    def setup(self, encoder: Encoder, path: str) -> str:
        """A config with this backbone, in ``model``."""
        settings, lines = settings_of(encoder), []
        if settings['type'] == 'mmpretrain.ResNet' and set(settings) <= _SHARED:
            settings['type'] = 'ResNet'
            if 'base_channels' in settings:  # theirs would widen the stem, too
                settings.setdefault('stem_channels', 64)
        else:
            package = settings['type'].split('.')[0]
            lines.append(f'custom_imports = dict(imports=[{package + ".models"!r}])')
        settings['init_cfg'] = dict(type='Pretrained', checkpoint=path)
        return code(
            *lines,
            'model = dict(',
            f'    data_preprocessor=dict({encoder.preprocessing.openmmlab("bgr_to_rgb")}),',
            f'    backbone={literal(settings)})',
        )

    def features(self, encoder: Encoder, names: Names, pictures: list[np.ndarray]) -> Tensor:
        """Features of the backbone in the config."""
        settings = names['model']
        names['built'] = _initialised(settings['backbone'])
        bgr = cropped(encoder.preprocessing, pictures).flip(1)
        # The class that mmdet's and mmseg's preprocessors derive from.
        preprocessor = ImgDataPreprocessor(**settings['data_preprocessor'])
        images = preprocessor(dict(inputs=list(bgr)))['inputs']
        with torch.no_grad():
            return pooled(names['built'](images), names['built'])

    def weights(self, encoder: Encoder, names: Names) -> dict[str, Tensor]:
        return names['built'].state_dict()


def _initialised(settings: dict[str, Any]) -> torch.nn.Module:
    backbone = MMPRETRAIN_MODELS.build({'_scope_': 'mmpretrain', **settings})
    # Like init_weights, without a log line for each tensor.
    initialize(backbone, backbone.init_cfg)
    backbone.eval()
    return backbone
