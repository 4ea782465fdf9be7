"""A training step of a config, compared with the same step on synthetic tensors.

    python tools/benchmarks/bench_train.py --config CONFIG --data FOLDER

Four rows, interleaved, round after round:
- training: a run with the config's dataloader, loop and hooks, with one log line in each
  round;
- ceiling: the step alone, on tensors that are on the device already;
- bare: forward and backward of backbone and neck on these tensors, without loss and
  optimizer;
- mmpretrain, if installed: its SimCLR, its views, its loader with as many workers, and
  the same backbone, batch and optimizer.
"""

import argparse
import statistics
from pathlib import Path

import torch
from input_loaders import Round, cut, their_loader
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.utils import register_all_modules
from rich.console import Console
from rich.table import Table
from timing import interleaved, ratio, save, spread, table_of, version

from simclr_mm.commands import command_line
from simclr_mm.commands.sweep.cells import two_views
from simclr_mm.evaluation import hardware
from simclr_mm.registry import type_name


def main() -> None:
    parser = command_line.parser_of(__doc__, '--cfg-options')
    add = parser.add_argument
    add('--config', required=True, help='of a pretraining')
    data = "photographs at any depth, or CIFAR-10, instead of the config's"
    add('--data', type=Path, help=data)
    add('--steps', type=int, default=4, help='in a round of each row')
    add('--repeats', type=int, default=5, help='rounds')
    add('--no-peer', action='store_true', help='leave mmpretrain out')
    add('--out', type=Path, help='folder for bench_train.json')
    args = parser.parse_args()
    console = Console(width=150)
    register_all_modules()
    cfg = configured(args)
    runner = RUNNERS.build(cfg)
    loop = Rounds(runner, cfg, args)
    runner._train_loop = loop
    runner.train()
    seconds = loop.seconds
    batch_size = cfg.train_dataloader.batch_size
    console.print(table(loop.rows, seconds, args.steps * batch_size))
    setting = (
        f'{Path(args.config).stem}, batch {batch_size}, {cfg.train_dataloader.num_workers} '
        f'workers, {runner.optim_wrapper.dtype}; {hardware()}; torch {torch.__version__}, '
        f'{version("mmpretrain")}; {args.repeats} rounds of {args.steps} steps'
    )
    console.print(setting)
    if args.out:
        save(args.out, 'bench_train', setting=setting, seconds=seconds)


def configured(args: argparse.Namespace) -> Config:
    cfg = command_line.read_config(args.config)
    command_line.merge_cfg_options(cfg, args.cfg_options)
    command_line.remove_validation(cfg)
    cfg.work_dir, cfg.log_level = 'work_dirs/bench_train', 'ERROR'
    cfg.auto_scale_lr = None
    cfg.train_cfg = dict(by_epoch=True)  # our loop replaces the config's
    cfg.default_hooks.logger.interval = args.steps
    cfg.default_hooks.data_wait.limit = 1.0  # no advice in the middle of a round
    loader = cfg.train_dataloader
    if args.data and type_name(loader.dataset.pipeline[0]) == 'LoadImageFromFile':
        loader.dataset = dict(
            type='simclr_mm.ImageFolder', data_root=str(args.data), pipeline=loader.dataset.pipeline
        )
    elif args.data:
        loader.dataset.data_root = str(args.data)
    loader.persistent_workers = loader.num_workers > 0
    wrapper = cfg.optim_wrapper
    cfg.optim_wrapper = dict(
        type='simclr_mm.AutocastOptimWrapper',
        dtype=wrapper.get('dtype', 'auto'),
        optimizer=wrapper.optimizer,
    )
    return cfg


class Rounds(EpochBasedTrainLoop):
    """A training loop that runs the rounds of all rows instead of training."""

    def __init__(self, runner: Runner, cfg: Config, args: argparse.Namespace) -> None:
        self.cfg, self.args = cfg, args
        ours = dict(
            cfg.train_dataloader,  # as our loops build it
            dataset=dict(type='simclr_mm.ReplaceUnreadable', dataset=cfg.train_dataloader.dataset),
        )
        # So many epochs that no checkpoint and no end of a warm-up comes.
        super().__init__(runner, cut(ours, args.steps), max_epochs=10**6)

    def run(self) -> None:
        count, model = self.args.steps, self.runner.model
        batch = next(iter(self.dataloader))
        resident = [model.data_preprocessor(batch, True)] * count
        # A separate optimizer without hooks.
        wrapper = self.runner.build_optim_wrapper(self.cfg.optim_wrapper)

        def ceiling(batch: dict) -> None:
            with wrapper.optim_context(model):
                losses = model.loss(**batch)  # without the hooks on the model
            wrapper.update_params(model.parse_losses(losses)[0])

        def bare(batch: dict) -> None:
            with wrapper.optim_context(model):
                z = model.neck(model.extract_feat(batch['inputs'].flatten(0, 1)))
            z.float().sum().backward()
            model.zero_grad()

        self.rows = {
            'training': Round(self.dataloader, count, self.step),
            'ceiling': Round(resident, count, ceiling),
            'bare forward and backward': Round(resident, count, bare),
        }
        if not self.args.no_peer:
            self.rows['mmpretrain'] = peer(self.cfg, model.neck.fc0.in_features, count)
        self.runner.call_hook('before_train')
        model.train()
        calls = dict(self.rows, training=self.epoch_of_a_round)
        self.seconds = interleaved(calls, self.args.repeats)
        self.runner.call_hook('after_train')

    def epoch_of_a_round(self) -> float:
        self.runner.call_hook('before_train_epoch')
        return self.rows['training']()

    def step(self, batch: dict) -> None:
        """A step with hooks. It is counted over all rounds, so that each has its log line."""
        self.run_iter(self.iter, batch)


def peer(cfg: Config, width: int, steps: int) -> Round:
    """mmpretrain's SimCLR with our backbone, batch and optimizer, without hooks."""
    _, views = two_views(cfg)
    theirs = Config(dict(cfg.to_dict(), runner_type='Runner', sync_bn=None))
    theirs.model = dict(
        type='mmpretrain.SimCLR',
        backbone=cfg.model.backbone,
        neck=dict(
            type='mmpretrain.NonLinearNeck',
            in_channels=width,
            hid_channels=width,
            out_channels=128,
            num_layers=2,
            with_avg_pool=True,
        ),
        head=dict(
            type='mmpretrain.ContrastiveHead',
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
            temperature=cfg.model.head.temperature,
        ),
        data_preprocessor=dict(cfg.data_preprocessor, type='mmpretrain.SelfSupDataPreprocessor'),
    )
    theirs.pop('data_preprocessor')
    theirs.experiment_name = 'theirs'
    theirs.default_hooks, theirs.visualizer = {}, None
    theirs.train_dataloader = their_loader(cfg.train_dataloader, views.size)
    theirs.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    theirs.param_scheduler = None
    runner = Runner.from_cfg(theirs)
    wrapper = runner.build_optim_wrapper(theirs.optim_wrapper)
    runner.model.train()
    loader = cut(theirs.train_dataloader, steps)
    return Round(loader, steps, lambda batch: runner.model.train_step(batch, wrapper))


def table(rows: dict[str, Round], seconds: dict[str, list[float]], images: int) -> Table:
    columns = 'median (lowest-highest)', 'of the ceiling', 'training takes', 'waited for data'
    lines = [
        (
            name,
            spread([images / s for s in values], 1),
            f'{ratio(seconds["ceiling"], values):.2f}',
            f'{ratio(seconds["training"], values):.2f}x its time',
            f'{100 * statistics.median(rows[name].waits):.0f} %',
            f'{rows[name].peak:.0f}' if rows[name].peak else '-',
        )
        for name, values in seconds.items()
    ]
    return table_of('Images per second', ('', *columns, 'GPU memory, MB'), lines)


if __name__ == '__main__':
    main()
