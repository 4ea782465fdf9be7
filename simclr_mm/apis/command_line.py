"""What the command-line tools share: flags and how they enter a config."""
import argparse
import contextvars
import os
import os.path as osp
import sys
import traceback
from datetime import datetime
from pathlib import Path
from typing import Callable, Optional

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from simclr_mm.checkpoints import CheckpointError, trust_checkpoints

_PACKAGE = Path(__file__).resolve().parents[1]
_TOOLS = _PACKAGE.joinpath('.mim', 'tools').resolve()
# Keys that MMEngine's runner reads though our configs do not set them.
_RUNNER_KEYS = {
    'activation_checkpointing', 'compile', 'custom_hooks', 'custom_imports',
    'efficient_conv_bn_eval', 'experiment_name', 'find_unused_parameters',
    'log_processor', 'model_wrapper_cfg', 'param_scheduler', 'sync_bn', 'work_dir'
}
# All that it reads of dicts in which it passes over other keys without a word.
_PARTS_READ = dict(
    auto_scale_lr={'base_batch_size', 'enable'},
    env_cfg={'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'})


def run(main: Callable[[], None]) -> None:
    """Run a tool: a user's mistake ends it in one line and with exit code 1.

    A mistake is a CheckpointError or a missing file, or a ValueError, OSError or
    ImportError that this package or a tool raised itself. Any other error is a fault of
    the program and keeps its traceback. What ``--trust-checkpoint`` allows ends with
    the tool.
    """
    try:
        contextvars.copy_context().run(main)
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        mistakes = CheckpointError, FileNotFoundError
        if not isinstance(error, mistakes) and not _is_ours(error):
            raise
        message = ' '.join(str(error).split())
        raise SystemExit(f'{Path(sys.argv[0]).name}: error: {message}') from error


def _is_ours(error: Exception) -> bool:
    """Whether a ``raise`` of this package or its tools made an error."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    parents = Path(frame.filename).resolve().parents
    return (_PACKAGE in parents or _TOOLS in parents) and frame.line.startswith('raise')


class _Trust(argparse.Action):
    """A flag that takes effect while the tool runs."""

    def __call__(self, *args) -> None:
        trust_checkpoints()


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-checkpoint``, which holds until the tool ends (see :func:`run`)."""
    parser.add_argument(
        '--trust-checkpoint',
        action=_Trust,
        nargs=0,
        default=argparse.SUPPRESS,
        help='read checkpoints that may run code; only for files whose author you '
        'trust as you trust a program')


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that train.py and test.py have in common with mmpretrain's."""
    parser.add_argument('--work-dir', help='folder of logs and checkpoints')
    add_cfg_options(parser)
    add_trust_flag(parser)
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='do not use pinned memory in the dataloaders')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of this job were started')
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='set by torch.distributed.launch')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config as key=value, for example '
        'train_cfg.max_epochs=2 param_scheduler.0.end=1; lists as key="[a,b]"')


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and enter the flags of :func:`add_common_flags`.

    ``--cfg-options`` are left to :func:`merge_cfg_options`, which comes last.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', Path(args.config).stem)
    if args.no_pin_memory:
        for loader in _dataloaders(cfg):
            loader.pin_memory = False
    return cfg


def merge_cfg_options(cfg: Config, options: Optional[dict]) -> None:
    """Merge ``--cfg-options``.

    Raises:
        ValueError: An option begins with a key that neither the config nor the runner
            has, or names a part that the runner does not read: it would change nothing.
            Or it leads into a value that has no parts, or to a place that a list does
            not have.
    """
    for key, value in (options or {}).items():
        first, *parts = key.split('.')
        if first not in cfg and first not in _RUNNER_KEYS:
            raise ValueError(
                f'--cfg-options {key}: the config has no key {first!r} and the runner '
                f'reads none. Keys of this config: {", ".join(sorted(cfg.keys()))}.')
        read = _PARTS_READ.get(first)
        if read and parts and parts[0] not in read:
            raise ValueError(f'--cfg-options {key}: the runner reads of {first} only '
                             f'{", ".join(sorted(read))}.')
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError) as error:
            raise ValueError(f'--cfg-options {key}: the config has no such place. '
                             f'{error.args[0]}') from error


def result_path(args: argparse.Namespace) -> Path:
    """A new file for the results of an evaluation, ``evaluation/<time>.json``.

    Args:
        args: With ``config`` and ``work_dir``; by default the latter is named after the
            config.
    """
    work_dir = args.work_dir or osp.join('work_dirs', Path(args.config).stem)
    now = datetime.now()  # to the microsecond: tools may end together
    return Path(work_dir, 'evaluation', now.strftime('%Y%m%d_%H%M%S_%f.json'))


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config names."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def is_classifier(cfg: Config) -> bool:
    """Whether the config trains a classifier on labels (linear evaluation)."""
    return cfg.model.type.split('.')[-1] == 'ImageClassifier'


def remove_validation(cfg: Config) -> None:
    """Train without validation."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def _dataloaders(cfg: Config) -> list:
    names = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [cfg[name] for name in names if cfg.get(name) is not None]
