"""The encoder that an export starts from, and what is known about it."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from simclr_mm.apis.encoder import build_stored
from simclr_mm.apis.inference import inference_model
from simclr_mm.apis.model_zoo import find_config, get_model
from simclr_mm.apis.preprocessing import Preprocessing
from simclr_mm.checkpoints import backbone_state, load_state, read_checkpoint
from simclr_mm.checkpoints.state_dict import left_out
from simclr_mm.checkpoints.stored_config import config_of
from simclr_mm.commands.command_line import merge_cfg_options
from simclr_mm.errors import CheckpointError
from simclr_mm.models import SimCLR

# Settings of a backbone that belong to its training, not to what it computes.
_TRAINING = ('init_cfg', 'frozen_stages', 'norm_eval', 'with_cp')
_STAMP = re.compile(r'_\d{8}_\d{6}$')  # MMEngine's name of a run: config_date_time


@dataclass
class Source:
    """An encoder with its weights.

    Args:
        name: Of the config it was trained with, or else of the file.
        file: Name of the checkpoint, without its folder.
        sha256: Of the checkpoint; None for one from the web.
        cfg: The training's config.
        checkpoint: What the file holds.
        backbone: The backbone's settings, type with its scope.
        state: Its tensors, keys without prefix.
        model: A SimCLR around it, in eval mode, only for its features.
        preprocessing: How a picture becomes its input.
        left_out: What an export leaves behind.
    """

    name: str
    file: str
    sha256: str | None
    cfg: Config
    checkpoint: dict[str, Any]
    backbone: dict[str, Any]
    state: dict[str, Tensor]
    model: SimCLR
    preprocessing: Preprocessing
    left_out: dict[str, str]

    def pictures(self, count: int = 3) -> list[np.ndarray]:
        """Random uint8 RGB pictures, as large as the resizing makes them."""
        side = self.preprocessing.resize
        noise = np.random.default_rng(0)
        return list(noise.integers(0, 256, (count, side, side, 3), np.uint8))

    def cropped(self, pictures: list[np.ndarray]) -> Tensor:
        """Pictures of that size as the encoder sees them: (n, 3, S, S), uint8 RGB."""
        start = round((self.preprocessing.resize - self.preprocessing.size) / 2)
        window = slice(start, start + self.preprocessing.size)
        pixels = torch.from_numpy(np.stack(pictures))[:, window, window]
        return pixels.permute(0, 3, 1, 2).contiguous()  # (n, S, S, 3) -> (n, 3, S, S)

    def features(self, pictures: list[np.ndarray]) -> Tensor:
        """(n, C) by this package's own way from a picture to a feature."""
        rows = [
            inference_model(self.model, np.ascontiguousarray(picture[..., ::-1]))
            for picture in pictures
        ]
        return torch.stack([torch.from_numpy(row['feature']) for row in rows])


def read_source(checkpoint: str, config: str | None = None, options: dict | None = None) -> Source:
    """Read the encoder of a checkpoint, strictly.

    Args:
        checkpoint: A path or URL; keys ``backbone.*``.
        config: A config file or a model name. None: the config in the file.
        options: Settings to override, as ``--cfg-options`` gives them.

    Returns:
        The encoder.

    Raises:
        CheckpointError: the file cannot be read, does not fit the config, or holds a
            number that is not finite.
        ValueError: how to prepare a picture is not known.
    """
    loaded, cfg, name = read_with_config(checkpoint, config)
    merge_cfg_options(cfg, options)
    if not cfg.get('model') or 'backbone' not in cfg.model:
        raise CheckpointError(
            f'{checkpoint}: its config has no model.backbone; name another with --config'
        )
    trained = build_stored(cfg, checkpoint)
    preprocessing = Preprocessing.of(trained, checkpoint)
    backbone = plain({k: v for k, v in cfg.model.backbone.items() if k not in _TRAINING})
    if '.' not in backbone['type']:
        backbone['type'] = f'mmpretrain.{backbone["type"]}'
    # A copy: tensors of a file may share one storage, which would be saved whole.
    state = {
        key: value.clone(memory_format=torch.contiguous_format)
        for key, value in backbone_state(loaded, source=checkpoint).items()
    }
    encoder = dict(type='simclr_mm.SimCLR', backbone=backbone, neck=None, head=None)
    model = get_model(Config(dict(model=encoder, test_dataloader=cfg.test_dataloader)))
    model.data_preprocessor = trained.data_preprocessor
    load_state(model.backbone, state, checkpoint)
    path = Path(checkpoint).expanduser()
    return Source(
        name=name,
        file=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
        cfg=cfg,
        checkpoint=loaded,
        backbone=backbone,
        state=state,
        model=model,
        preprocessing=preprocessing,
        left_out=left_out(loaded, checkpoint),
    )


def read_with_config(checkpoint: str, config: str | None) -> tuple[dict[str, Any], Config, str]:
    """A checkpoint, its config and the config's name.

    Raises:
        CheckpointError: the file cannot be read, or no config is given and it holds
            none.
    """
    loaded = read_checkpoint(checkpoint)
    if config is not None:
        return loaded, find_config(config)[0], Path(config).stem
    cfg = config_of(loaded, checkpoint)
    run = str(loaded['meta'].get('experiment_name') or Path(checkpoint).stem)
    # Files are named after it: it may not lead out of their folder.
    return loaded, cfg, _STAMP.sub('', Path(run).name)


def plain(value: Any) -> Any:
    """Config dicts as dicts, whatever stands in them."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(entry) for entry in value)
    return value
