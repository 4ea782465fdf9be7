"""Build models by name or config, with their weights."""

from fnmatch import fnmatch
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel

from .hub import register
from .loading import build_encoder


def list_models(pattern: str | None = None) -> list[str]:
    """Names of this package's models, for :func:`simclr_mm.get_model`.

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
        model: A name from :func:`list_models` or mmpretrain's, the path of a config
            (``.py``), or a Config.
        pretrained: True for the published weights of the model; a path or URL for other
            weights; False for random ones. With weights of another library the model's
            preprocessing gets the mean and std of that library.
        device: Device of the model. None: the CPU.
        trust_checkpoint: Let the file run code, in this call only. Trust its author as
            you trust the author of a program.
        **kwargs: Override keys of the config's ``model`` dict. A dict with another
            ``type`` replaces the config's dict: ``backbone=dict(type=
            'VisionTransformer', arch='small')``. ``head=None`` or ``neck=None`` removes
            the part and its weights.

    Returns:
        The model. SimCLR's ``extract_feat(images)`` gives (n, C) for images (n, 3, S,
        S) in normalised RGB. :func:`simclr_mm.inference_model` takes image files.

    Raises:
        UserError: No such name, device, or published weights, or backbone=None.
        CheckpointError: The weights cannot be read, or a key does not fit.

    Differs: mmpretrain's ``get_model`` ignores keys that do not fit, and returns random
    weights with a warning if there are no published ones.
    """
    return build_encoder(model, pretrained, device, trust_checkpoint, **kwargs).model
