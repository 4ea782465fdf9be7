"""Shared parts of the command-line tools: flags, and how they change a config."""

from simclr_mm.engine import build_runner
from simclr_mm.engine.options import merge_cfg_options
from simclr_mm.engine.training_data import remove_validation

from .config import (
    build_dataset,
    config_with_flags,
    is_classifier,
    load_config,
    result_path,
    test_data,
)
from .errors import command
from .flags import WORK_DIR, add_common_flags, parser_of
from .shared_work import ALONE, Ranks, ranks, refuse_ranks
from .values import KeyValues, at_least, out_file, out_folder, out_picture, read_config

__all__ = [
    'ALONE',
    'KeyValues',
    'Ranks',
    'WORK_DIR',
    'add_common_flags',
    'at_least',
    'build_dataset',
    'build_runner',
    'command',
    'config_with_flags',
    'is_classifier',
    'load_config',
    'merge_cfg_options',
    'out_file',
    'out_folder',
    'out_picture',
    'parser_of',
    'ranks',
    'read_config',
    'remove_validation',
    'refuse_ranks',
    'result_path',
    'test_data',
]
