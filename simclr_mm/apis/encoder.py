"""A model from a checkpoint alone, and the flags of tools that embed images."""
import argparse
import os.path as osp
from pathlib import Path
from typing import Dict, Union

import torch
from mmengine.device import get_device
from mmengine.model import BaseModel

from simclr_mm.checkpoints import read_checkpoint

from .command_line import add_trust_flag
from .inference import PRECISIONS, FeatureInferencer
from .model_zoo import get_model, list_models, put_on
from .stored_config import build_stored, config_of


def load_encoder(checkpoint: Union[str, Path],
                 config: Union[str, Path, None] = None,
                 device: Union[str, torch.device, None] = None) -> BaseModel:
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


def add_encoder_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that :func:`inferencer_of` reads beside ``checkpoint``."""
    parser.add_argument(
        '--config',
        help='config or model name; default: the config stored in the checkpoint')
    parser.add_argument('--device', help='cuda, cuda:1, cpu; default: a GPU if any')
    parser.add_argument(
        '--precision',
        choices=sorted(PRECISIONS),
        default='fp32',
        help='fp16 needs a GPU; bf16 also runs on CPUs')
    parser.add_argument(
        '--compile', action='store_true', help='compile the network with torch.compile')
    add_trust_flag(parser)


def inferencer_of(args: argparse.Namespace) -> FeatureInferencer:
    """The inferencer that the flags of :func:`add_encoder_flags` ask for."""
    model = load_encoder(args.checkpoint, args.config)
    return FeatureInferencer(
        model,
        device=args.device or get_device(),
        precision=args.precision,
        compile=args.compile)


def origin_of(args: argparse.Namespace) -> Dict[str, str]:
    """Checkpoint and config as another working directory finds them."""
    origin = dict(checkpoint=args.checkpoint, config=args.config)
    return {
        key: osp.abspath(value) if osp.exists(value) else value
        for key, value in origin.items() if value is not None
    }
