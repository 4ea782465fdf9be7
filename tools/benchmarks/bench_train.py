"""A training step of a config, compared with the same step on synthetic tensors.

    python tools/benchmarks/bench_train.py --config CONFIG --data FOLDER

Rows, interleaved, round after round:
- training: a run with the config's dataloader, loop and hooks, with one log line in each
  round;
- ceiling: the step alone, on tensors that are on the device already;
- bare: forward and backward of backbone and neck on these tensors, without loss and
  optimizer;
- mmpretrain: its SimCLR, its views, its loader with as many workers, and the same backbone,
  batch and optimizer;
- lightly, if installed: its views, head and loss in the loop of its documentation, the same
  backbone, batch, workers and optimizer.

If the config's views grow, the steps of a round are spread over its epochs. The peers train at the
size of the test images throughout.

``--dtypes float32 bfloat16`` repeats the training and the peers in each precision. ``--busy 2``
computes in two other processes meanwhile.
"""

import argparse
import importlib.util
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from input_loaders import Round, cut, their_loader
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS, RUNNERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import DATASETS, MODELS
from mmpretrain.utils import register_all_modules
from PIL import Image
from rich.console import Console
from rich.table import Table
from timing import busy, interleaved, ratio, save, spread, table_of, version
from torch.utils.data import DataLoader, Dataset, RandomSampler

from simclr_mm.commands import command_line
from simclr_mm.commands.sweep.cells import two_views
from simclr_mm.engine.options import merge_cfg_options
from simclr_mm.engine.training_data import remove_validation
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
    dtypes = "precisions of the training and the peers, default: the config's"
    add('--dtypes', nargs='+', choices=['float32', 'bfloat16'], default=['auto'], help=dtypes)
    add('--busy', type=int, default=0, help='other processes that compute meanwhile')
    add('--no-peer', action='store_true', help='leave the peers out')
    add('--out', type=Path, help='folder for bench_train.json')
    args = parser.parse_args()
    console = Console(width=150)
    register_all_modules()
    cfg = configured(args)
    runner = RUNNERS.build(cfg)
    loop = Rounds(runner, cfg, args)
    runner._train_loop = loop
    with busy(args.busy):
        runner.train()
    seconds = loop.seconds
    batch_size = cfg.train_dataloader.batch_size
    console.print(table(loop.rows, seconds, args.steps * batch_size))
    setting = (
        f'{Path(args.config).stem}, batch {batch_size}, {cfg.train_dataloader.num_workers} '
        f'workers, {runner.optim_wrapper.dtype}; {hardware()}, {args.busy} busy processes; '
        f'torch {torch.__version__}, {version("mmpretrain")}, {version("lightly")}; '
        f'{args.repeats} rounds of {args.steps} steps'
    )
    console.print(setting)
    if args.out:
        save(args.out, 'bench_train', setting=setting, seconds=seconds)


def configured(args: argparse.Namespace) -> Config:
    cfg = command_line.read_config(args.config)
    merge_cfg_options(cfg, args.cfg_options)
    remove_validation(cfg)
    cfg.work_dir, cfg.log_level = 'work_dirs/bench_train', 'ERROR'
    cfg.auto_scale_lr = None
    # Our loop replaces the config's.
    cfg.train_cfg = dict(by_epoch=True, max_epochs=cfg.train_cfg.get('max_epochs', 1))
    cfg.default_hooks.logger.interval = args.steps
    cfg.default_hooks.data_wait.limit = 1.0  # no advice in the middle of a round
    cfg.default_hooks.free_cores = None  # it would choose the threads of the peers too
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
        loader = cut(ours, args.steps, cfg.train_cfg.max_epochs)
        super().__init__(runner, loader, max_epochs=10**6)

    def run(self) -> None:
        count, model = self.args.steps, self.runner.model
        device = next(model.parameters()).device.type
        resident: list[dict] = []
        for batch in islice(self.dataloader, count):
            batch = model.data_preprocessor(batch, True)
            alike = [b for b in resident if b['inputs'].shape == batch['inputs'].shape]
            resident.append((alike or [batch])[0])  # one of each size in memory
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
            'ceiling': Round(resident, count, ceiling),
            'bare forward and backward': Round(resident, count, bare),
        }
        calls = dict(self.rows)
        for chosen in self.args.dtypes:
            name = '' if chosen == 'auto' else f', {chosen}'
            dtype = wrapper.dtype if chosen == 'auto' else getattr(torch, chosen)
            self.rows[f'training{name}'] = training = Round(self.dataloader, count, self.step)
            calls[f'training{name}'] = partial(self.epoch_of_a_round, training, dtype)
            for peer in [] if self.args.no_peer else PEERS:
                row = peer(self.cfg, model.neck.fc0.in_features, count)
                self.rows[f'{peer.__name__}{name}'] = row
                calls[f'{peer.__name__}{name}'] = partial(under_autocast, row, device, dtype)
        self.runner.call_hook('before_train')
        model.train()
        self.seconds = interleaved(calls, self.args.repeats)
        self.runner.call_hook('after_train')

    def epoch_of_a_round(self, training: Round, dtype: torch.dtype) -> float:
        self.runner.optim_wrapper.dtype = dtype
        self.runner.call_hook('before_train_epoch')
        return training()

    def step(self, batch: dict) -> None:
        """A step with hooks. It is counted over all rounds, so that each has its log line."""
        self.run_iter(self.iter, batch)


def under_autocast(row: Round, device: str, dtype: torch.dtype) -> float:
    """A round of a peer, whose own wrapper has no bf16 on a CPU."""
    with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
        return row()


def mmpretrain(cfg: Config, width: int, steps: int) -> Round:
    """mmpretrain's SimCLR with our backbone, batch and optimizer, without hooks."""
    neck = dict(type='mmpretrain.NonLinearNeck', num_layers=2, with_avg_pool=True)
    loss = dict(type='mmpretrain.CrossEntropyLoss')
    temperature = cfg.model.head.temperature
    model = MODELS.build(
        dict(
            type='mmpretrain.SimCLR',
            backbone=cfg.model.backbone,
            neck=dict(neck, in_channels=width, hid_channels=width, out_channels=128),
            head=dict(type='mmpretrain.ContrastiveHead', loss=loss, temperature=temperature),
            data_preprocessor=dict(
                cfg.data_preprocessor, type='mmpretrain.SelfSupDataPreprocessor'
            ),
        )
    ).to(get_device())
    wrapper = OptimWrapper(optimizer_of(cfg, model.parameters()))
    model.train()
    loader = cut(their_loader(cfg.train_dataloader, size_of_peers(cfg)), steps)
    return Round(loader, steps, lambda batch: model.train_step(batch, wrapper))


def size_of_peers(cfg: Config) -> int:
    """The side of the views of a peer: that of the test images."""
    _, views, _ = two_views(cfg)
    if not views.get('milestones'):
        return views.size
    (*_, last) = (
        step for step in cfg.test_dataloader.dataset.pipeline if {'scale', 'crop_size'} & set(step)
    )
    return last.get('crop_size', last.get('scale'))


def optimizer_of(cfg: Config, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return OPTIMIZERS.build(dict(cfg.optim_wrapper.optimizer, params=list(parameters)))


def lightly(cfg: Config, width: int, steps: int) -> Round:
    """lightly's views, head and loss, in the loop of its documentation."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    size = size_of_peers(cfg)
    small = dict(cj_strength=0.5, gaussian_blur=0.0) if size == 32 else {}
    loader = cfg.train_dataloader
    dataset = Pictures(loader.dataset, SimCLRTransform(input_size=size, **small))
    device = get_device()
    backbone = MODELS.build(cfg.model.backbone).to(device)
    head = SimCLRProjectionHead(width, width, 128).to(device)
    criterion = NTXentLoss(cfg.model.head.temperature)
    optimizer = optimizer_of(cfg, [*backbone.parameters(), *head.parameters()])

    def step(batch: list[torch.Tensor]) -> None:
        z0, z1 = [
            head(torch.flatten(backbone(view.to(device))[-1].mean((2, 3)), start_dim=1))
            for view in batch
        ]
        criterion(z0, z1).backward()
        optimizer.step()
        optimizer.zero_grad()

    count = steps + 2 * loader.num_workers  # untimed batches fill the queues, as in cut()
    images = RandomSampler(dataset, replacement=True, num_samples=count * loader.batch_size)
    workers = dict(num_workers=loader.num_workers, persistent_workers=loader.num_workers > 0)
    return Round(DataLoader(dataset, loader.batch_size, sampler=images, **workers), steps, step)


class Pictures(Dataset):
    """The images of a config's dataset as PIL images, given to a transform."""

    def __init__(self, dataset: dict, transform: Callable) -> None:
        files = type_name(dataset.pipeline[0]) == 'LoadImageFromFile'
        pipeline = dataset.pipeline[:1] if files else []
        plain = {key: value for key, value in dataset.items() if key != 'batched'}
        self.images = DATASETS.build(dict(plain, pipeline=pipeline))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return self.transform(Image.fromarray(self.images[index]['img']))


PEERS = [mmpretrain, lightly] if importlib.util.find_spec('lightly') else [mmpretrain]


def table(rows: dict[str, Round], seconds: dict[str, list[float]], images: int) -> Table:
    first = next(seconds[name] for name in seconds if name.startswith('training'))
    columns = 'median (lowest-highest)', 'of the ceiling', 'training takes', 'waited for data'
    lines = [
        (
            name,
            spread([images / s for s in values], 1),
            f'{ratio(seconds["ceiling"], values):.2f}',
            f'{ratio(first, values):.2f}x its time',
            f'{100 * statistics.median(rows[name].waits):.0f} %',
            f'{rows[name].peak:.0f}' if rows[name].peak else '-',
        )
        for name, values in seconds.items()
    ]
    return table_of('Images per second', ('', *columns, 'GPU memory, MB'), lines)


if __name__ == '__main__':
    main()
