"""An encoder: a model, its image preprocessing, and the origin of both.

n images, S side in pixels, C feature width.
"""

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

from simclr_mm.checkpoints import weights_hash
from simclr_mm.engine.training_data import rgb_in_memory
from simclr_mm.errors import UserError
from simclr_mm.files.hashes import bytes_hash
from simclr_mm.models.pooled import pooled
from simclr_mm.registry import type_name
from simclr_mm.transforms import LoadImageFromFile
from simclr_mm.transforms.loading import LOADING_STEPS

from .preprocessing import Preprocessing, takes_bgr


@dataclass(frozen=True)
class Encoder:
    """A model with everything needed to use it.

    Args:
        model: In eval mode.
        config: The model's config.
        name: Of the model or its config; '' if neither has one.
        source: Path or URL of the weights; '' for random ones.
        classes: Class names of a classifier, if known.
        training: ``meta`` and ``message_hub`` of the checkpoint, if it has them.
        pipeline: Transforms of a test image, if the config has them.
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
            UserError: The config has none.
        """
        if self.pipeline is None:
            raise UserError(
                'the model has no config with a test_dataloader, so its preprocessing is '
                'unknown: build the model with get_model'
            )
        steps = [step for step in self.pipeline if type_name(step) not in LOADING_STEPS]
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            built = [TRANSFORMS.build(dict(step)) for step in steps]
        if self.stays_rgb:
            built.insert(0, _to_rgb)
        return Compose(built)

    @property
    def stays_rgb(self) -> bool:
        """Whether its images are mmpretrain's CIFAR, RGB in memory and for the network."""
        dataset = (self.config.get('test_dataloader') or {}).get('dataset') or {}
        return rgb_in_memory(dataset) and not takes_bgr(self.model.data_preprocessor)

    @property
    def loading_step(self) -> dict[str, Any]:
        """What reads an image file: the pipeline's LoadBands, else as 8-bit BGR."""
        return _loading_step(self.pipeline)

    @property
    def loading(self) -> LoadImageFromFile:
        """The transform of :attr:`loading_step`."""
        return loading_of(self.pipeline)

    @property
    def bands(self) -> int:
        """Channels of an image; 3 are RGB unless :attr:`loading` is LoadBands."""
        return self.config.model.backbone.get('in_channels', 3)

    def require_rgb(self, use: str) -> None:
        """Raise a UserError, which names the use, unless images are RGB."""
        if type_name(self.loading_step) == 'LoadBands':
            raise UserError(
                f'{self.source or "the encoder"}: its images have {self.bands} band(s) of '
                f'simclr_mm.LoadBands, and {use} needs RGB pictures'
            )

    @property
    def preprocessing(self) -> Preprocessing:
        """The transforms and the normalisation as numbers.

        Raises:
            UserError: :class:`Preprocessing` cannot express them.
        """
        return Preprocessing.of(self.model.data_preprocessor, self.pipeline, self.source)

    def features(self, images: Tensor) -> Tensor:
        """Features (n, C) of preprocessed images (n, bands, S, S)."""
        return pooled(self.model.extract_feat(images), self.model)

    def width(self) -> int:
        """C of :meth:`features`."""
        with torch.no_grad():
            return self.features(self._black()).shape[1]

    def _black(self) -> Tensor:
        side = self.preprocessing.size
        return next(self.model.backbone.parameters()).new_zeros(1, self.bands, side, side)

    def feature_shape(self) -> torch.Size:
        """Of one image from the backbone: (1, C, H, W) of a map, (1, C) of a vector."""
        with torch.no_grad():
            features = self.model.backbone(self._black())
        return (features[-1] if isinstance(features, (tuple, list)) else features).shape

    def transform(self) -> dict[str, Any]:
        """The steps from a decoded image to the network's input, as plain data."""
        preprocessor = self.model.data_preprocessor
        settings = dict(self.config.model.get('data_preprocessor') or {})
        settings['type'] = type(preprocessor).__name__
        for key, value in preprocessor.named_buffers():
            if key in ('mean', 'std'):
                settings[key] = value.flatten().tolist()
        colours = dict(colours='RGB') if self.stays_rgb else {}  # files were read as BGR before
        return dict(
            pipeline=_named(plain_data(self.pipeline)),
            data_preprocessor=plain_data(settings),
            **colours,
        )

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the weights and of the transform. Features depend on nothing else."""
        transform = json.dumps(self.transform(), sort_keys=True)
        return dict(
            weights=weights_hash(self.model.state_dict()),
            transform=bytes_hash([transform.encode()]),
        )

    def on(self, device: str | torch.device | None) -> 'Encoder':
        """Move the model to a device. None: it stays.

        Raises:
            UserError: This machine has no such device. The model stays where it was.
        """
        if device is not None:
            try:
                torch.empty(0, device=device).cpu()  # the meta device holds no values
            except (AssertionError, ImportError, RuntimeError, TypeError) as error:
                reason = str(error).splitlines()[0].partition('. ')[0]
                raise UserError(
                    f'there is no device {device} here ({reason}): name another'
                ) from error
            self.model.to(device)
        return self


def _loading_step(pipeline: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    bands = [dict(step) for step in pipeline or () if type_name(step) == 'LoadBands']
    return bands[0] if bands else dict(type='simclr_mm.LoadImageFromFile')


def loading_of(pipeline: Sequence[Mapping[str, Any]] | None) -> LoadImageFromFile:
    """The transform that reads the files of a pipeline: its LoadBands, or 8-bit BGR."""
    return TRANSFORMS.build(_loading_step(pipeline))


def _to_rgb(results: dict[str, Any]) -> dict[str, Any]:
    return dict(results, img=results['img'][..., ::-1].copy())


def pipeline_of(config: Mapping[str, Any], phase: str = 'test') -> list[dict[str, Any]] | None:
    """The transforms of a config's images in a phase. None if there are none."""
    dataset = (config.get(f'{phase}_dataloader') or {}).get('dataset')
    while dataset is not None and 'pipeline' not in dataset:  # such as a LabelSubset
        dataset = dataset.get('dataset')
    return None if dataset is None else dataset['pipeline']


def _named(settings: Any) -> Any:
    """The settings with OpenMMLab's types as bare names.

    A config may write a type as a class, or as a name with or without scope or module.
    """
    if isinstance(settings, list):
        return [_named(entry) for entry in settings]
    if not isinstance(settings, dict):
        return settings
    named = {key: _named(entry) for key, entry in settings.items()}
    if str(named.get('type')).split('.')[0] in ('mmcv', 'mmengine', 'mmpretrain', 'simclr_mm'):
        named['type'] = type_name(named)
    return named


def plain_data(settings: Any) -> Any:
    """A config's settings as JSON data. A class becomes its name, with its module."""

    def text(value: Any) -> str:
        is_class = isinstance(value, type)
        return f'{value.__module__}.{value.__qualname__}' if is_class else str(value)

    return json.loads(json.dumps(settings, default=text))
