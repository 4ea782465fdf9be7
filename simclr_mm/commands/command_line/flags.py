"""Flags of several commands."""

import argparse
from typing import Any

from simclr_mm.checkpoints import trust_checkpoints
from simclr_mm_console.parser import Parser

from .shared_work import processes_of_torchrun, refuse_ranks
from .values import KeyValues, at_least, cache_folder


class _Trust(argparse.Action):
    """A flag that takes effect while the tool runs."""

    def __call__(self, *args) -> None:
        trust_checkpoints()


_FLAGS: dict[str, dict[str, Any]] = {
    'config': dict(help='pretraining config'),
    'checkpoint': dict(help='a path, a URL or the name of a model with weights'),
    '--config': dict(
        help='config file or model name; default: the config stored in the checkpoint'
    ),
    '--data': dict(metavar='DIR', help="images of this folder instead of the config's"),
    '--device': dict(help='cuda, cuda:1, cpu; default: a GPU if any'),
    '--precision': dict(
        metavar='{fp32,fp16,bf16}', default='fp32', help='fp16 needs a GPU; bf16 also runs on CPUs'
    ),
    '--compile': dict(action='store_true', help='compile the network with torch.compile'),
    '--workers': dict(type=at_least(0), default=2, help='processes that read images'),
    '--seed': dict(type=at_least(0), default=0, help='of every draw'),
    '--cache': dict(
        metavar='DIR',
        type=cache_folder,
        default='',
        help='keep features here for the next time; default: $SIMCLR_MM_HOME/features, and '
        'nothing is kept where SIMCLR_MM_HOME is not set',
    ),
    '--processes': dict(
        type=at_least(1),
        help='runs at a time; default: 1, and with --slurm as many as Slurm starts',
    ),
    '--slurm': dict(
        nargs='*',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='each run is a job of Slurm, with these settings of sbatch, for example '
        'partition=gpu time=720 cpus_per_task=8 (minutes; needs submitit)',
    ),
    '--cfg-options': dict(
        nargs='+',
        action=KeyValues,
        help='override settings of the config as key=value, for example '
        'train_cfg.max_epochs=2 param_scheduler.0.end=1; lists as key="[a,b]"',
    ),
    # Its effect ends with the command, see .errors.command.
    '--trust-checkpoint': dict(
        action=_Trust,
        nargs=0,
        default=argparse.SUPPRESS,
        help='read checkpoints that may run code; only for files whose author you '
        'trust as you trust a program',
    ),
}


def parser_of(doc: str | None, *names: str, shared: bool = False) -> argparse.ArgumentParser:
    """A parser with a module's docstring as description, and shared flags by name.

    A command whose work ranks do not share (``shared``) refuses to run in several processes.
    """
    if not shared:
        refuse_ranks('one process does all the work of this command')
    parser = Parser(doc)
    for name in names:
        parser.add_argument(name, **_FLAGS[name])
    return parser


WORK_DIR = "default: the config's work_dir, or work_dirs/<name of the config>"


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that train.py and test.py share with mmpretrain's."""
    add = parser.add_argument
    add('--work-dir', help=f'of logs and checkpoints; {WORK_DIR}')
    add('--no-pin-memory', action='store_true', help='no pinned memory in the dataloaders')
    launchers = ('none', 'pytorch', 'slurm', 'mpi')
    started = 'how the processes of this job were started; default: pytorch under torchrun'
    default = 'pytorch' if processes_of_torchrun() > 1 else 'none'
    add('--launcher', choices=launchers, default=default, help=started)
    add('--local_rank', '--local-rank', type=int, default=0, help="set by PyTorch's launcher")
