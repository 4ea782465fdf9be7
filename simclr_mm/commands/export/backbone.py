"""The backbone to export, and the images that verify an export."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from simclr_mm.apis.encoder import Encoder
from simclr_mm.apis.inference import inference_model
from simclr_mm.apis.loading import encoder_of_checkpoint, open_checkpoint
from simclr_mm.apis.preprocessing import Preprocessing
from simclr_mm.checkpoints.state_dict import left_out
from simclr_mm.engine.options import merge_cfg_options
from simclr_mm.errors import CheckpointError
from simclr_mm.files.storage import file_name
from simclr_mm.transforms import LoadBands

_PICTURES = 3  # that verify an export
# Settings of a backbone that belong to its training and do not change its output.
_TRAINING = ('init_cfg', 'frozen_stages', 'norm_eval', 'with_cp', 'pretrained', 'checkpoint_path')


def read_backbone(
    checkpoint: str, config: str | None = None, options: dict | None = None
) -> tuple[Encoder, dict[str, str]]:
    """Read the backbone of a checkpoint, strictly.

    Returns:
        The encoder, without neck and head, and what the export leaves out, by name.
    """
    opened = open_checkpoint(checkpoint, config)
    merge_cfg_options(opened.config, options)
    if not opened.config.get('model') or 'backbone' not in opened.config.model:
        raise CheckpointError(
            f'{checkpoint}: its config has no model.backbone; name another with --config'
        )
    encoder = encoder_of_checkpoint(opened, only_backbone=True)
    _ = encoder.preprocessing  # raises early
    return encoder, left_out(opened.content, checkpoint)


def file_of(encoder: Encoder) -> str:
    """Name of the checkpoint's file, without its folder, or the signature of a URL."""
    return file_name(encoder.source)


def settings_of(encoder: Encoder) -> dict[str, Any]:
    """The backbone's settings, with the scope of its type."""
    backbone = encoder.config.model.backbone
    settings = {key: v for key, v in backbone.to_dict().items() if key not in _TRAINING}
    of_type = backbone.type
    if isinstance(of_type, type):
        settings['type'] = f'{of_type.__module__.split(".")[0]}.{of_type.__name__}'
    elif '.' not in of_type:
        settings['type'] = f'mmpretrain.{of_type}'
    return settings


def tensors_of(encoder: Encoder) -> dict[str, Tensor]:
    """The backbone's tensors, keys without prefix, each in its own memory."""
    return {
        key: value.detach().clone(memory_format=torch.contiguous_format)
        for key, value in encoder.model.backbone.state_dict().items()
    }


def pictures(preprocessing: Preprocessing) -> list[np.ndarray]:
    """Random images of the size after resizing: uint8 RGB, or float32 of bands."""
    side = preprocessing.resize
    noise = np.random.default_rng(0)
    if preprocessing.loading is not None:
        shape = _PICTURES, side, side, len(preprocessing.mean)
        values = noise.normal(preprocessing.mean, preprocessing.std, shape).astype(np.float32)
        loading = LoadBands(**preprocessing.loading)  # within its window, as files are
        return [loading.finished(each, 'a random image') for each in values]
    return list(noise.integers(0, 256, (_PICTURES, side, side, 3), np.uint8))


def cropped(preprocessing: Preprocessing, pictures: list[np.ndarray]) -> Tensor:
    """Images of that size as input of the encoder: (n, 3 or bands, S, S) of the same type."""
    start = round((preprocessing.resize - preprocessing.size) / 2)
    window = slice(start, start + preprocessing.size)
    pixels = torch.from_numpy(np.stack(pictures))[:, window, window]
    return pixels.permute(0, 3, 1, 2).contiguous()  # (n, S, S, C) -> (n, C, S, S)


def features_of(encoder: Encoder, pictures: list[np.ndarray]) -> Tensor:
    """(n, C) features from this package's own inference."""
    rgb = encoder.preprocessing.loading is None
    images = [picture[..., ::-1] if rgb else picture for picture in pictures]
    rows = [inference_model(encoder, image)['feature'] for image in images]
    return torch.from_numpy(np.stack(rows))
