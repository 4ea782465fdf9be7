"""Shared parts of the command-line tools: flags, and how they change a config."""

from .config import (
    TOOLS,
    build_runner,
    is_classifier,
    load_config,
    merge_cfg_options,
    remove_validation,
    result_path,
)
from .errors import command
from .flags import add_cfg_options, add_common_flags, add_trust_flag
from .values import KeyValues, at_least, read_config

__all__ = [
    'KeyValues',
    'TOOLS',
    'add_cfg_options',
    'add_common_flags',
    'add_trust_flag',
    'at_least',
    'build_runner',
    'command',
    'is_classifier',
    'load_config',
    'merge_cfg_options',
    'read_config',
    'remove_validation',
    'result_path',
]
