"""Shared parts of the command-line tools: flags, and how they change a config."""

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
    'command',
    'config_with_flags',
    'is_classifier',
    'load_config',
    'out_file',
    'out_folder',
    'out_picture',
    'parser_of',
    'ranks',
    'read_config',
    'refuse_ranks',
    'result_path',
    'test_data',
]
