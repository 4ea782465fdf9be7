"""Apply flags to a config, and build its runner and its results file."""

import argparse
import os
import os.path as osp
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from simclr_mm.engine.arguments import check_config
from simclr_mm.engine.config_errors import building_from, check_type
from simclr_mm.errors import UserError
from simclr_mm.registry import type_name

from .values import read_config

# Keys that MMEngine's runner reads although our configs do not set them.
_RUNNER_KEYS = {
    *('activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'sync_bn'),
    *('custom_hooks', 'custom_imports', 'experiment_name', 'work_dir'),
    *('find_unused_parameters', 'log_processor', 'model_wrapper_cfg', 'param_scheduler'),
}
# Dicts in which it silently ignores all keys except these.
_PARTS_READ = dict(
    auto_scale_lr={'base_batch_size', 'enable', 'rule'},
    env_cfg={'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'},
)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and apply the flags of :func:`.flags.add_common_flags`.

    :func:`merge_cfg_options` applies ``--cfg-options`` last.
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
    for phase in ('train', 'val', 'test'):
        loader = cfg.get(f'{phase}_dataloader')
        if args.no_pin_memory and loader is not None:
            loader.pin_memory = False
    return cfg


def config_with_flags(
    path: str,
    args: argparse.Namespace,
    replace_data: Callable[[Config, str], None],
    part: str = 'model',
) -> Config:
    """Read a config that has this part, and apply ``--data`` and ``--cfg-options``."""
    cfg = read_config(path, part)
    if args.data is not None:
        replace_data(cfg, args.data)
    merge_cfg_options(cfg, args.cfg_options)
    return cfg


def merge_cfg_options(cfg: Config, options: dict | None) -> None:
    """Merge ``--cfg-options``, and check the arguments of this package's classes.

    An option that would change nothing, because neither the config nor the runner reads it, is
    a UserError, and one that would put a second data_preprocessor beside the one in use.
    """
    for key, value in (options or {}).items():
        _refuse_other_preprocessor(cfg, key, value)
        first, *parts = key.split('.')
        if first not in cfg and first not in _RUNNER_KEYS:
            raise UserError(
                f'--cfg-options {key}: the config has no key {first!r} and the runner '
                f'reads none. Keys of this config: {", ".join(sorted(cfg.keys()))}.'
            )
        read = _PARTS_READ.get(first)
        if read and parts and parts[0] not in read:
            raise UserError(
                f'--cfg-options {key}: the keys of {first} are {", ".join(sorted(read))}.'
            )
        place = cfg.get(first)
        for part in parts:
            if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
                place = place[int(part)]
            else:
                place = place.get(part) if isinstance(place, dict) else None
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
    check_config(cfg)


def _refuse_other_preprocessor(cfg: Config, key: str, value: Any) -> None:
    """MMEngine takes the model's data_preprocessor as a whole, or else that of the config."""
    used, other = 'data_preprocessor', 'model.data_preprocessor'
    if used in (cfg.get('model') or {}):
        used, other = other, used
    elif cfg.get(used) is None:
        return
    if key == 'model' and isinstance(value, dict) and 'data_preprocessor' in value:
        key = 'model.data_preprocessor'
    if key == other or key.startswith(f'{other}.'):
        raise UserError(
            f'--cfg-options {key}: the settings of this config are in {used}, and a second '
            f'data_preprocessor is not merged with them: write {used}{key.removeprefix(other)}'
        )


def result_path(args: argparse.Namespace) -> Path:
    """A new file for results, ``evaluation/<time>.json`` in ``--work-dir`` or its default."""
    work_dir = args.work_dir or osp.join('work_dirs', Path(args.config).stem)
    now = datetime.now()  # with microseconds, because tools may end together
    return Path(work_dir, 'evaluation', now.strftime('%Y%m%d_%H%M%S_%f.json'))


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config names."""
    check_type(RUNNERS, cfg.get('runner_type'), 'runner_type')
    with building_from(cfg):
        return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def build_dataset(settings: dict) -> BaseDataset:
    """Build a dataset from its config, whose names may be mmpretrain's."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(settings)


def is_classifier(cfg: Config) -> bool:
    """Whether the config trains a classifier, on labels or as a teacher's student."""
    return type_name(cfg.get('model')) in ('ImageClassifier', 'Distillation')


def remove_validation(cfg: Config) -> None:
    """Train without validation."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
