"""The backbone that an export is made of, and the pictures that prove it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simclr_mm.apis.encoder import Encoder
from simclr_mm.apis.inference import inference_model
from simclr_mm.apis.loading import encoder_of_checkpoint, open_checkpoint
from simclr_mm.apis.preprocessing import Preprocessing
from simclr_mm.checkpoints.state_dict import left_out
from simclr_mm.commands.command_line import merge_cfg_options
from simclr_mm.errors import CheckpointError

# Settings of a backbone that belong to its training, not to what it computes.
_TRAINING = ('init_cfg', 'frozen_stages', 'norm_eval', 'with_cp', 'pretrained', 'checkpoint_path')


def read_backbone(
    checkpoint: str, config: str | None = None, options: dict | None = None
) -> tuple[Encoder, dict[str, str]]:
    """Read the backbone of a checkpoint, strictly.

    Returns:
        The encoder, without neck and head; and what an export leaves behind, by name.
    """
    opened = open_checkpoint(checkpoint, config)
    merge_cfg_options(opened.config, options)
    if not opened.config.get('model') or 'backbone' not in opened.config.model:
        raise CheckpointError(
            f'{checkpoint}: its config has no model.backbone; name another with --config'
        )
    encoder = encoder_of_checkpoint(opened, only_backbone=True)
    _ = encoder.preprocessing  # or an error now
    return encoder, left_out(opened.content, checkpoint)


def file_of(encoder: Encoder) -> str:
    """Name of the checkpoint's file, without its folder."""
    return Path(encoder.source).name


def settings_of(encoder: Encoder) -> dict[str, Any]:
    """The backbone's settings, type with its scope."""
    backbone = plain(
        {key: v for key, v in encoder.config.model.backbone.items() if key not in _TRAINING}
    )
    of_type = backbone['type']
    if isinstance(of_type, type):
        scope = of_type.__module__.split('.')[0]
        backbone['type'] = f'{scope}.{of_type.__name__}'
    elif '.' not in of_type:
        backbone['type'] = f'mmpretrain.{of_type}'
    return backbone


def tensors_of(encoder: Encoder) -> dict[str, Tensor]:
    """The backbone's tensors, keys without prefix, each with a memory of its own."""
    return {
        key: value.detach().clone(memory_format=torch.contiguous_format)
        for key, value in encoder.model.backbone.state_dict().items()
    }


def pictures(preprocessing: Preprocessing, count: int = 3) -> list[np.ndarray]:
    """Random uint8 RGB pictures, as large as the resizing makes them."""
    side = preprocessing.resize
    noise = np.random.default_rng(0)
    return list(noise.integers(0, 256, (count, side, side, 3), np.uint8))


def cropped(preprocessing: Preprocessing, pictures: list[np.ndarray]) -> Tensor:
    """Pictures of that size as the encoder sees them: (n, 3, S, S), uint8 RGB."""
    start = round((preprocessing.resize - preprocessing.size) / 2)
    window = slice(start, start + preprocessing.size)
    pixels = torch.from_numpy(np.stack(pictures))[:, window, window]
    return pixels.permute(0, 3, 1, 2).contiguous()  # (n, S, S, 3) -> (n, 3, S, S)


def features_of(encoder: Encoder, pictures: list[np.ndarray]) -> Tensor:
    """(n, C) by this package's own way from a picture to a feature."""
    rows = [inference_model(encoder, picture[..., ::-1])['feature'] for picture in pictures]
    return torch.from_numpy(np.stack(rows))


def is_map(encoder: Encoder) -> bool:
    """Whether the backbone gives a map (n, C, H, W)."""
    size = encoder.preprocessing.size
    with torch.no_grad():
        features = encoder.model.backbone(torch.zeros(1, 3, size, size))
    return (features[-1] if isinstance(features, (tuple, list)) else features).ndim == 4


def plain(value: Any) -> Any:
    """Config dicts as dicts, whatever stands in them."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(entry) for entry in value)
    return value
