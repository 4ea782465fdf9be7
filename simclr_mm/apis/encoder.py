"""An encoder: a model, how a picture becomes its input, and where both come from.

n images, S side in pixels, C feature width.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from torch import Tensor

from simclr_mm.errors import UserError
from simclr_mm.models import pooled
from simclr_mm.registry import type_name

from .fingerprint import plain_data, weights_hash
from .preprocessing import Preprocessing


@dataclass(frozen=True)
class Encoder:
    """A model with what is needed to use it. Nothing in it changes after it is built.

    Args:
        model: In eval mode.
        config: The model's config.
        name: Of the model or its config; '' if neither has one.
        source: Path or URL of the weights; '' for random ones.
        classes: Names of the classes that a classifier tells apart, if known.
        training: ``meta`` and ``message_hub`` of the checkpoint, as far as it has them.
        pipeline: The transforms of a test image. None: the config does not have them.
    """

    model: BaseModel
    config: Config
    name: str = ''
    source: str = ''
    classes: Sequence[str] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Sequence[Mapping[str, Any]] | None = None

    @property
    def transforms(self) -> Compose:
        """The transforms of a test image, without the one that reads a file.

        Raises:
            UserError: the config has none.
        """
        if self.pipeline is None:
            raise UserError(
                'the model has no config with a test_dataloader, so it is not known how to '
                'prepare a picture: build the model with get_model'
            )
        steps = [step for step in self.pipeline if type_name(step) != 'LoadImageFromFile']
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return Compose([TRANSFORMS.build(dict(step)) for step in steps])

    @property
    def preprocessing(self) -> Preprocessing:
        """The transforms and the normalisation as numbers.

        Raises:
            UserError: they are more than numbers can say.
        """
        return Preprocessing.of(self.model.data_preprocessor, self.pipeline, self.source)

    def features(self, images: Tensor) -> Tensor:
        """Features (n, C) of images (n, 3, S, S) out of the model's preprocessor."""
        return pooled(self.model.extract_feat(images), self.model)

    def transform(self) -> dict[str, Any]:
        """From a decoded uint8 BGR image to the network's input, as plain data."""
        preprocessor = self.model.data_preprocessor
        settings = dict(self.config.model.get('data_preprocessor') or {})
        settings['type'] = type(preprocessor).__name__
        for key, value in preprocessor.named_buffers():
            if key in ('mean', 'std'):
                settings[key] = value.flatten().tolist()
        return dict(
            pipeline=_named(plain_data(self.pipeline)), data_preprocessor=plain_data(settings)
        )

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the weights and of the transform: features depend on nothing else."""
        transform = json.dumps(self.transform(), sort_keys=True)
        return dict(
            weights=weights_hash(self.model),
            transform=hashlib.sha256(transform.encode()).hexdigest(),
        )

    def on(self, device: str | torch.device | None) -> 'Encoder':
        """Move the model. None: it stays where it is.

        Raises:
            UserError: this machine has no such device; the model is where it was.
        """
        if device is not None:
            try:
                torch.empty(0, device=device)
            except (AssertionError, RuntimeError) as error:  # without and with CUDA
                reason = str(error).splitlines()[0]
                raise UserError(f'there is no device {device} here ({reason})') from error
            self.model.to(device)
        return self


def encoder_of(model: Encoder | BaseModel) -> Encoder:
    """The encoder around a model from :func:`get_model`, which a user passes on.

    Raises:
        UserError: the model was not built by ``get_model``.
    """
    if isinstance(model, Encoder):
        return model
    config = getattr(model, '_config', None)
    if config is None:
        raise UserError(
            'the model has no config, so it is not known how to prepare a picture: build it '
            'with get_model'
        )
    classes = (getattr(model, '_dataset_meta', None) or {}).get('classes')
    return Encoder(model, config, classes=classes, pipeline=pipeline_of(config))


def pipeline_of(config: Config, phase: str = 'test') -> list[dict[str, Any]] | None:
    """The transforms of a config's images in a phase; None where it has none."""
    dataset = (config.get(f'{phase}_dataloader') or {}).get('dataset')
    while dataset is not None and 'pipeline' not in dataset:  # within a LabelSubset
        dataset = dataset.get('dataset')
    return None if dataset is None else dataset['pipeline']


def _named(settings: Any) -> Any:
    """The same settings with the types of OpenMMLab by their names alone.

    A config may name a class by itself, by its name, its scope or its module.
    """
    if isinstance(settings, list):
        return [_named(entry) for entry in settings]
    if not isinstance(settings, dict):
        return settings
    named = {key: _named(entry) for key, entry in settings.items()}
    if str(named.get('type')).split('.')[0] in ('mmcv', 'mmengine', 'mmpretrain', 'simclr_mm'):
        named['type'] = type_name(named)
    return named
