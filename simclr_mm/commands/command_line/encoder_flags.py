"""The flags of tools that embed images, and their inferencer."""

import argparse
import os.path as osp

from mmengine.device import get_device

from simclr_mm.apis.encoder import load_encoder
from simclr_mm.apis.inference import PRECISIONS, FeatureInferencer

from .flags import add_trust_flag


def add_config_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, the config of a checkpoint."""
    parser.add_argument(
        '--config', help='config file or model name; default: the config stored in the checkpoint'
    )


def add_encoder_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that :func:`inferencer_of` reads besides ``checkpoint``."""
    add_config_flag(parser)
    parser.add_argument('--device', help='cuda, cuda:1, cpu; default: a GPU if any')
    parser.add_argument(
        '--precision',
        choices=sorted(PRECISIONS),
        default='fp32',
        help='fp16 needs a GPU; bf16 also runs on CPUs',
    )
    parser.add_argument(
        '--compile', action='store_true', help='compile the network with torch.compile'
    )
    add_trust_flag(parser)


def inferencer_of(args: argparse.Namespace) -> FeatureInferencer:
    """The inferencer for the flags of :func:`add_encoder_flags`."""
    encoder = load_encoder(args.checkpoint, args.config, args.device or get_device())
    return FeatureInferencer(encoder, precision=args.precision, compile=args.compile)


def origin_of(args: argparse.Namespace) -> dict[str, str]:
    """Checkpoint and config, with absolute paths for use in other working directories."""
    origin = dict(checkpoint=args.checkpoint, config=args.config)
    return {
        key: osp.abspath(value) if osp.exists(value) else value
        for key, value in origin.items()
        if value is not None
    }
