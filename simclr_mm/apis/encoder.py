"""A model from a checkpoint alone."""

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel

from simclr_mm.checkpoints import read_checkpoint
from simclr_mm.checkpoints.stored_config import config_of
from simclr_mm.errors import CheckpointError

from .model_zoo import get_model, list_models, put_on


def load_encoder(
    checkpoint: str | Path,
    config: str | Path | None = None,
    device: str | torch.device | None = None,
) -> BaseModel:
    """Build the model that a checkpoint belongs to, and load it.

    Args:
        checkpoint: A path or URL, or a name with published weights.
        config: A config file or a model name. None: the config that MMEngine stored in
            the checkpoint when it was trained.
        device: Where to put the model. None: the CPU.

    Returns:
        As :func:`simclr_mm.get_model`.

    Raises:
        CheckpointError: the checkpoint cannot be read, does not fit, or holds no config
            while none is given.
        ValueError: ``config`` is no name and no file.
    """
    checkpoint = str(checkpoint)
    if config is not None:
        return get_model(config, pretrained=checkpoint, device=device)
    if checkpoint.lower() in list_models():
        return get_model(checkpoint, pretrained=True, device=device)
    stored = config_of(read_checkpoint(checkpoint), checkpoint)
    model = build_stored(stored, checkpoint, pretrained=checkpoint)
    return put_on(model, device or 'cpu')


def build_stored(config: Config, source: str, **kwargs: Any) -> BaseModel:
    """Build the model of a config that came with a checkpoint.

    Args:
        config: From ``config_of``, or what the user named in its place.
        source: Name of the file, for errors.
        **kwargs: As for :func:`simclr_mm.get_model`.

    Returns:
        As :func:`simclr_mm.get_model`.

    Raises:
        CheckpointError: nothing can be built from it, or weights do not fit.
    """
    try:
        return get_model(config, **kwargs)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a class says to wrong arguments
        raise CheckpointError(
            f'{source}: no model can be built from its config ({type(error).__name__}: '
            f'{error}); name another with --config'
        ) from error
