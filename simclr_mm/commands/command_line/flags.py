"""Flags of several tools."""

import argparse

from simclr_mm.checkpoints import trust_checkpoints

from .values import KeyValues


class _Trust(argparse.Action):
    """A flag that takes effect while the tool runs."""

    def __call__(self, *args) -> None:
        trust_checkpoints()


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-checkpoint``. :func:`.errors.command` ends its effect with the tool."""
    parser.add_argument(
        '--trust-checkpoint',
        action=_Trust,
        nargs=0,
        default=argparse.SUPPRESS,
        help='read checkpoints that may run code; only for files whose author you '
        'trust as you trust a program',
    )


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that train.py and test.py share with mmpretrain's."""
    add = parser.add_argument
    add('--work-dir', help='folder of logs and checkpoints')
    add_cfg_options(parser)
    add_trust_flag(parser)
    add('--no-pin-memory', action='store_true', help='no pinned memory in the dataloaders')
    launchers = ('none', 'pytorch', 'slurm', 'mpi')
    started = 'how the processes of this job were started'
    add('--launcher', choices=launchers, default='none', help=started)
    add('--local_rank', '--local-rank', type=int, default=0, help="set by PyTorch's launcher")


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        help='override settings of the config as key=value, for example '
        'train_cfg.max_epochs=2 param_scheduler.0.end=1; lists as key="[a,b]"',
    )
