"""The flags of tools that embed images, and their inferencer."""

import argparse
import os.path as osp

from mmengine.device import get_device

from simclr_mm.apis import load_encoder
from simclr_mm.apis.inference import FeatureInferencer

# The shared flags that :func:`inferencer_of` reads besides the checkpoint.
ENCODER_FLAGS = ('--config', '--device', '--precision', '--compile', '--trust-checkpoint')


def inferencer_of(args: argparse.Namespace) -> FeatureInferencer:
    """The inferencer for these flags."""
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
