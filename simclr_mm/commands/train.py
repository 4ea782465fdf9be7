"""Train a config: pretraining, linear evaluation or fine-tuning."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.device import get_device

from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.data_folder import train_on_folder
from simclr_mm.errors import UserError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', nargs='?', help='config file')
    parser.add_argument(
        '--data',
        nargs='+',
        metavar='DIR',
        help="train on this instead of the config's data. Pretraining: folders with images "
        'at any depth, .txt or .csv lists of paths, or one pack; a classifier: a folder with '
        'train/<class>/ and val/<class>/',
    )
    parser.add_argument(
        '--pretrained',
        metavar='PATH',
        help='checkpoint of the encoder that a linear evaluation or a fine-tuning starts from',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from this checkpoint, or from the latest one in the work dir',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='fp16 with a loss scaler, for GPUs without bf16, which pretraining uses '
        'by itself where there is one',
    )
    parser.add_argument('--no-validate', action='store_true', help='skip validation')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by actual batch / auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='start the loader workers anew in each epoch',
    )
    command_line.add_common_flags(parser)
    args = parser.parse_args(argv)
    if args.config is None and args.data and args.data[-1].endswith('.py'):
        args.config = args.data.pop()  # it may stand behind --data DIR
    if args.config is None:
        parser.error('the following arguments are required: config')
    return args


def enter_flags(cfg: Config, args: argparse.Namespace) -> None:
    """Enter the flags that only training has."""
    if args.data is not None:
        train_on_folder(cfg, *args.data)
    if args.no_validate:
        command_line.remove_validation(cfg)
    if args.pretrained is not None:
        if 'init_cfg' not in cfg.model.backbone:
            raise UserError(
                f'--pretrained: {args.config} trains its encoder from scratch. To '
                'continue from weights use --cfg-options load_from=PATH.'
            )
        cfg.model.backbone.init_cfg.checkpoint = args.pretrained
    if args.amp:
        if get_device() == 'cpu':
            raise UserError('--amp: fp16 needs a GPU, and there is none: leave it out.')
        cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='float16')
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        cfg.auto_scale_lr.enable = True
    if args.no_persistent_workers:
        for name in ('train_dataloader', 'val_dataloader'):
            if cfg.get(name) is not None:
                cfg[name].persistent_workers = False


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = command_line.load_config(args)
    enter_flags(cfg, args)
    command_line.merge_cfg_options(cfg, args.cfg_options)
    command_line.build_runner(cfg).train()
