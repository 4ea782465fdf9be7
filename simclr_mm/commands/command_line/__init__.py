"""Shared parts of the command-line tools: flags, and how they change a config."""

from .config import (
    build_dataset,
    build_runner,
    config_with_flags,
    is_classifier,
    load_config,
    merge_cfg_options,
    remove_validation,
    result_path,
)
from .errors import command
from .flags import add_common_flags, parser_of
from .values import KeyValues, at_least, read_config

__all__ = [
    'KeyValues',
    'add_common_flags',
    'at_least',
    'build_dataset',
    'build_runner',
    'command',
    'config_with_flags',
    'is_classifier',
    'load_config',
    'merge_cfg_options',
    'parser_of',
    'read_config',
    'remove_validation',
    'result_path',
]
