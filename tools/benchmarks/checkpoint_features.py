"""What agreement.py and linear_protocols.py share: the features of a checkpoint."""

import argparse

from mmengine.config import Config
from mmengine.device import get_device

from simclr_mm.apis.model_zoo import get_model
from simclr_mm.commands import command_line
from simclr_mm.commands.evaluate.cache import default_cache
from simclr_mm.commands.evaluate.labelled import gallery_and_queries
from simclr_mm.evaluation import Labelled


def parser(description: str) -> argparse.ArgumentParser:
    """With the arguments that :func:`gallery_and_queries_of` needs."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('checkpoint', help='checkpoint, a path or a URL')
    parser.add_argument('--cache', metavar='DIR', default=default_cache())
    command_line.add_cfg_options(parser)
    command_line.add_trust_flag(parser)
    return parser


def gallery_and_queries_of(args: argparse.Namespace) -> tuple[Labelled, Labelled]:
    """Features and labels of the config's test dataloader, gallery and queries."""
    cfg = Config.fromfile(args.config)
    command_line.merge_cfg_options(cfg, args.cfg_options)
    model = get_model(cfg, pretrained=args.checkpoint, device=get_device())
    return gallery_and_queries(model, cfg.test_dataloader, args.cache)
