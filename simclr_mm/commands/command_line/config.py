"""What flags make of a config, and the runner and the file of results it asks for."""

import argparse
import os
import os.path as osp
from datetime import datetime
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from simclr_mm.engine.config_errors import building_from
from simclr_mm.errors import UserError
from simclr_mm.files.installed import MIM
from simclr_mm.registry import type_name

from .values import read_config

TOOLS = MIM / 'tools'

# Keys that MMEngine's runner reads though our configs do not set them.
_RUNNER_KEYS = {
    *('activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'sync_bn'),
    *('custom_hooks', 'custom_imports', 'experiment_name', 'work_dir'),
    *('find_unused_parameters', 'log_processor', 'model_wrapper_cfg', 'param_scheduler'),
}
# All that it reads of dicts in which it passes over other keys without a word.
_PARTS_READ = dict(
    auto_scale_lr={'base_batch_size', 'enable'},
    env_cfg={'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'},
)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and enter the flags of :func:`.flags.add_common_flags`.

    ``--cfg-options`` are left to :func:`merge_cfg_options`, which comes last.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config)
    if args.work_dir == '':
        raise UserError('--work-dir is empty: name a folder')
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', Path(args.config).stem)
    if args.no_pin_memory:
        for loader in _dataloaders(cfg):
            loader.pin_memory = False
    return cfg


def merge_cfg_options(cfg: Config, options: dict | None) -> None:
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
            raise UserError(
                f'--cfg-options {key}: the config has no key {first!r} and the runner '
                f'reads none. Keys of this config: {", ".join(sorted(cfg.keys()))}.'
            )
        read = _PARTS_READ.get(first)
        if read and parts and parts[0] not in read:
            raise UserError(
                f'--cfg-options {key}: the runner reads of {first} only {", ".join(sorted(read))}.'
            )
        place = _at(cfg, key)
        if isinstance(place, dict) and isinstance(value, str | int | float):
            raise UserError(f'--cfg-options {key}={value}: {key} is a dict, name a key in it')
        if isinstance(place, int | float) and isinstance(value, str):
            kind = 'True or False' if isinstance(place, bool) else 'a number'
            raise UserError(
                f'--cfg-options {key}={value}: it is {place} in the config, give {kind}'
            )
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError) as error:
            raise UserError(
                f'--cfg-options {key}: the config has no such place. {error.args[0]}'
            ) from error


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
    with building_from(cfg):
        return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def is_classifier(cfg: Config) -> bool:
    """Whether the config trains a classifier on labels (linear evaluation)."""
    return type_name(cfg.get('model')) == 'ImageClassifier'


def remove_validation(cfg: Config) -> None:
    """Train without validation."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def _at(cfg: Config, key: str) -> Any:
    """What stands at ``param_scheduler.0.end``; None where there is no such place."""
    place: Any = cfg
    for part in key.split('.'):
        if isinstance(place, dict | Config):
            place = place.get(part)
        elif isinstance(place, list | tuple) and part.isdecimal() and int(part) < len(place):
            place = place[int(part)]
        else:
            return None
    return place


def _dataloaders(cfg: Config) -> list:
    names = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [cfg[name] for name in names if cfg.get(name) is not None]
