"""The flags of tools that embed images, and their inferencer."""

import argparse
import os.path as osp
from pathlib import Path

from mmengine.device import get_device

from simclr_mm.apis import load_encoder
from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.apis.model_zoo import default_encoder, weights_of
from simclr_mm.checkpoints.safe_load import file_problem
from simclr_mm.errors import CheckpointError
from simclr_mm.files.storage import is_url

# The shared flags that :func:`inferencer_of` reads besides the checkpoint.
ENCODER_FLAGS = ('--config', '--device', '--precision', '--compile', '--trust-checkpoint')
ENCODER = 'a path, a URL or the name of a model with weights; default: the one in the package'


def inferencer_of(args: argparse.Namespace) -> FeatureInferencer:
    """The inferencer for these flags."""
    encoder = load_encoder(args.checkpoint, args.config, args.device or get_device())
    return FeatureInferencer(encoder, precision=args.precision, compile=args.compile)


def or_default(checkpoint: str | None) -> str:
    """The checkpoint that was named, or the encoder in the package, whose name is printed."""
    if checkpoint is None:
        checkpoint = default_encoder()
        print(f'encoder: {checkpoint}, in the package; for larger pictures name one of yours')
    return checkpoint


def checkpoint_of(argument: str) -> str:
    """Path or URL of a checkpoint, or of a model's weights, for a config whose runner reads it.

    Raises:
        CheckpointError: It is no checkpoint, as is seen before anything is built.
    """
    source = weights_of(argument)
    problem = None if is_url(source) else file_problem(Path(source).expanduser(), None)
    if problem and source.endswith('.pth'):  # others have forms of their own
        raise CheckpointError(f'{source} {problem}')
    return source


def origin_of(args: argparse.Namespace) -> dict[str, str]:
    """Checkpoint and config, with absolute paths for use in other working directories."""
    origin = dict(checkpoint=args.checkpoint, config=args.config)
    return {
        key: osp.abspath(value) if osp.exists(value) else value
        for key, value in origin.items()
        if value is not None
    }
