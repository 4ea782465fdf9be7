"""Apply flags to a config, and build its runner and its results file."""

import argparse
import os
import os.path as osp
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from simclr_mm.engine.options import merge_cfg_options
from simclr_mm.errors import UserError
from simclr_mm.registry import type_name

from .values import read_config


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and apply the flags of :func:`.flags.add_common_flags`.

    :func:`merge_cfg_options` applies ``--cfg-options`` last.
    """
    # Of the launchers MPI alone has its own name for it.
    local_rank = os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', str(args.local_rank))
    os.environ.setdefault('LOCAL_RANK', local_rank)
    cfg = read_config(args.config)
    if args.work_dir == '':
        raise UserError('--work-dir is empty: name a folder')
    cfg.launcher = args.launcher
    cfg.work_dir = work_dir_of(args, cfg)
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


def work_dir_of(args: argparse.Namespace, cfg: Config) -> str:
    """``--work-dir``, else that of the config, else one with its name."""
    named = args.work_dir or cfg.get('work_dir')
    return named or osp.join('work_dirs', Path(args.config).stem)


def result_path(args: argparse.Namespace, cfg: Config) -> Path:
    """A new file for results, ``evaluation/<time>.json`` in the work dir."""
    now = datetime.now()  # with microseconds, because tools may end together
    return Path(work_dir_of(args, cfg), 'evaluation', now.strftime('%Y%m%d_%H%M%S_%f.json'))


def test_data(cfg: Config) -> ConfigDict:
    """The ``test_dataloader`` of a config.

    Raises:
        UserError: It has none.
    """
    if not cfg.get('test_dataloader'):
        name = Path(cfg.filename or 'the config').name
        raise UserError(
            f'{name} has no test_dataloader, whose images would be evaluated: take a config that '
            'has one, such as those of simclr_mm'
        )
    return cfg.test_dataloader


def build_dataset(settings: dict) -> BaseDataset:
    """Build a dataset from its config, whose names may be mmpretrain's."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(settings)


def metrics_of(evaluator: dict | Sequence[dict] | None) -> list[Any]:
    """The metrics of a config's evaluator, which may be one, several or none."""
    return [evaluator] if isinstance(evaluator, dict) else list(evaluator or ())


def is_classifier(cfg: Config) -> bool:
    """Whether the config trains a classifier, on labels or as a teacher's student."""
    return type_name(cfg.get('model')) in ('ImageClassifier', 'Distillation')
