"""The flags of tools that embed images, and the inferencer that they ask for."""

import argparse
import os.path as osp

from mmengine.device import get_device

from simclr_mm.apis import load_encoder
from simclr_mm.apis.inference import FeatureInferencer

# Of the flags that commands share, those for :func:`inferencer_of`, beside the checkpoint.
ENCODER_FLAGS = ('--config', '--device', '--precision', '--compile', '--trust-checkpoint')


def inferencer_of(args: argparse.Namespace) -> FeatureInferencer:
    """The inferencer that the flags ask for."""
    encoder = load_encoder(args.checkpoint, args.config, args.device or get_device())
    return FeatureInferencer(encoder, precision=args.precision, compile=args.compile)


def origin_of(args: argparse.Namespace) -> dict[str, str]:
    """Checkpoint and config as another working directory finds them."""
    origin = dict(checkpoint=args.checkpoint, config=args.config)
    return {
        key: osp.abspath(value) if osp.exists(value) else value
        for key, value in origin.items()
        if value is not None
    }
