"""What the command-line tools share: flags and how they enter a config."""
from .config import (build_runner, is_classifier, load_config, merge_cfg_options,
                     remove_validation, result_path)
from .errors import run
from .flags import add_cfg_options, add_common_flags, add_trust_flag

__all__ = [
    'add_cfg_options', 'add_common_flags', 'add_trust_flag', 'build_runner',
    'is_classifier', 'load_config', 'merge_cfg_options', 'remove_validation',
    'result_path', 'run'
]
