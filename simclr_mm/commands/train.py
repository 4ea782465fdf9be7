"""Train a config: pretraining, linear evaluation or fine-tuning."""

import argparse

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from rich.filesize import decimal

from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.data_folder import train_on_folder
from simclr_mm.commands.command_line.encoder_flags import checkpoint_of
from simclr_mm.commands.command_line.knn_flags import knn_while_training
from simclr_mm.engine import build_runner
from simclr_mm.engine.dry_run import dry_run
from simclr_mm.engine.options import merge_cfg_options
from simclr_mm.engine.training_data import remove_validation
from simclr_mm.errors import UserError
from simclr_mm.files.installed import config_files
from simclr_mm.registry import type_name


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = command_line.parser_of(__doc__, '--cfg-options', '--trust-checkpoint', shared=True)
    add = parser.add_argument
    add('config', nargs='?', help='config file, or a name of simclr-mm configs')
    add(
        '--data',
        nargs='+',
        metavar='DIR',
        help="replaces the config's data. Pretraining: folders with images at any depth, "
        '.txt, .csv or .parquet lists of paths, or one pack; a classifier: a folder with '
        'train/<class>/ and val/<class>/',
    )
    labelled = (
        'kNN while pretraining, on a folder with train/<class>/ and val/<class>/, or with '
        '<class>/, or on a table with the columns path and label'
    )
    add('--val', metavar='DIR', help=labelled)
    held_out = (
        'the same, on a share of --data, such as 0.1, or on a split that its table names; '
        'whole groups, and never trained on; without labels, rank and alignment of features'
    )
    add('--val-split', metavar='SHARE', help=held_out)
    encoder = 'checkpoint of the encoder that a classifier, or another pretraining, starts from'
    add('--pretrained', metavar='PATH', help=encoder)
    resumed = 'continue from this checkpoint, or from the latest one in the work dir, if any'
    add('--resume', nargs='?', const='auto', metavar='CHECKPOINT', help=resumed)
    fp16 = 'fp16 with a loss scaler, for GPUs without bf16; pretraining uses bf16 by default'
    add('--amp', action='store_true', help=fp16)
    add('--no-validate', action='store_true', help='skip validation')
    scaled = 'scale the learning rate from auto_scale_lr.base_batch_size to the actual batch'
    add('--auto-scale-lr', action='store_true', help=scaled)
    anew = 'start the loader workers again in each epoch'
    add('--no-persistent-workers', action='store_true', help=anew)
    played = 'no training: build the part of rank K of N in this process, and print what it needs'
    add('--dry-run', type=_rank_of, metavar='N:K', help=played)
    command_line.add_common_flags(parser)
    args = parser.parse_args(argv)
    last = args.data[-1] if args.data else ''
    if args.config is None and (last.endswith('.py') or last in config_files()):
        args.config = args.data.pop()  # it may follow --data DIR
    if args.config is None or args.data == []:
        parser.error('name a config file, and a folder after --data')
    return args


def _rank_of(text: str) -> tuple[int, int]:
    """(K, N) of N:K."""
    ranks, _, rank = text.partition(':')
    if not (ranks.isdecimal() and rank.isdecimal() and int(rank) < int(ranks) <= 1 << 20):
        raise argparse.ArgumentTypeError(f'{text!r}: give N:K, such as 512:17, with K below N')
    return int(rank), int(ranks)


def print_plan(rank: int, ranks: int, found: dict[str, float]) -> None:
    """What :func:`.dry_run` has found, a line for each part of the job."""
    batch, rows, average = int(found['batch']), int(found['rows']), found['gradients']
    exchanged = rows * (12 * found['width'] + 20)  # docs/loss.md
    print(
        f'Rank {rank} of {ranks}, played by one process. Nothing was sent, so losses mean nothing.'
    )
    print(
        f'data        {found["images"]:,.0f} images, {found["share"]:,.0f} an epoch for this rank; '
        f'{found["steps"]:,.0f} steps of {batch} images here, {batch * ranks:,} in all'
    )
    print(
        f'model       {found["parameters"] / 1e6:.1f} M trained parameters; {_size(average)}, as '
        f'much for their gradients, {_size(found["optimizer"])} for the optimizer'
    )
    print(f'checkpoint  {_size(found["checkpoint"])}')
    print(
        f'exchange    {_size(2 * average)} of gradients a step, and {_size(exchanged)} for a loss '
        f'over {rows:,} projections of {found["width"]:.0f} numbers'
    )
    print(
        f'memory      {_size(found["before"])} before anything was built, {_size(found["built"])} '
        f'with data and model, {_size(found["peak"])} in a step'
    )
    print(f'time        {found["seconds"]:.3g} s a step on this machine')


def _size(count: float) -> str:
    return decimal(round(count))


def enter_flags(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the flags that only training has."""
    validates = args.val is not None or args.val_split is not None
    if args.data is not None:
        train_on_folder(cfg, *args.data, keep_validation=validates)
    if validates and args.no_validate:
        raise UserError('--no-validate excludes --val and --val-split: leave one of them out.')
    if validates:
        knn_while_training(cfg, args.data, args.val, args.val_split)
    if args.no_validate:
        remove_validation(cfg)
    if args.pretrained is not None:
        _begin_with(cfg, args.pretrained, args.config)
    if args.amp:
        if get_device() == 'cpu':
            raise UserError('--amp: fp16 needs a GPU, and there is none: leave it out.')
        cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='float16')
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume == 'auto':  # load_from stays, for a run that has no checkpoint yet
        cfg.resume = 'auto'
    elif args.resume is not None:
        cfg.resume, cfg.load_from = True, checkpoint_of(args.resume)
    if args.no_persistent_workers:
        for name in ('train_dataloader', 'val_dataloader'):
            if cfg.get(name) is not None:
                cfg[name].persistent_workers = False


def _begin_with(cfg: Config, checkpoint: str, name: str) -> None:
    """Let a model begin with an encoder, and check that it does."""
    given = cfg.model.backbone.get('init_cfg') or []
    init_cfgs = [given] if isinstance(given, dict) else given
    places = [each for each in init_cfgs if type_name(each) in ('Pretrained', 'PretrainedInit')]
    pretrains = type_name(cfg.model) == 'SimCLR'
    if not places and pretrains:
        # As a dict: only then do mmpretrain's backbones initialise nothing after it.
        places = [ConfigDict(type='Pretrained', prefix='backbone.')]
        cfg.model.backbone.init_cfg = places[0]
    if not places:
        raise UserError(
            f'--pretrained: {name} has no model.backbone.init_cfg of type Pretrained, so it trains '
            'its encoder from scratch. To continue from weights use --cfg-options load_from=PATH.'
        )
    places[0]['checkpoint'] = checkpoint_of(checkpoint)
    hooks = cfg.get('custom_hooks') or []
    if not any(type_name(each) == 'PretrainedBackboneHook' for each in hooks):
        check = dict(type='simclr_mm.PretrainedBackboneHook', frozen=False, strict=pretrains)
        cfg.custom_hooks = [*hooks, check]


@command_line.command
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = command_line.load_config(args)
    enter_flags(cfg, args)
    named = cfg.get('load_from')
    merge_cfg_options(cfg, args.cfg_options)
    if args.resume not in (None, 'auto') and cfg.load_from != named:
        raise UserError(
            f'--resume {args.resume} and load_from={cfg.load_from} name two checkpoints: leave one '
            'of them out'
        )
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr'):
            raise UserError('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    if args.dry_run is not None:
        rank, ranks = args.dry_run
        print_plan(rank, ranks, dry_run(cfg, rank, ranks))
        return
    build_runner(cfg).train()
