"""Merge single settings into a config, strictly."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from simclr_mm.errors import UserError

from .arguments import check_config

# Keys that MMEngine's runner reads although our configs do not set them.
_RUNNER_KEYS = {
    *('activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'sync_bn'),
    *('auto_scale_lr', 'custom_hooks', 'custom_imports', 'env_cfg', 'experiment_name'),
    *('find_unused_parameters', 'load_from', 'log_level', 'log_processor', 'model_wrapper_cfg'),
    *('param_scheduler', 'randomness', 'resume', 'visualizer', 'work_dir'),
}
_WORDS = {'resume': 'auto', 'optim_wrapper.loss_scale': 'dynamic'}  # beside a number or a bool
# Dicts in which it silently ignores all keys except these.
_PARTS_READ = dict(
    auto_scale_lr={'base_batch_size', 'enable', 'rule'},
    env_cfg={'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'},
)


def merge_cfg_options(
    cfg: Config, options: Mapping[str, Any] | None, flag: str = '--cfg-options'
) -> None:
    """Merge ``--cfg-options``, and check the arguments of this package's classes.

    Raises:
        UserError: an option would change nothing, because neither the config nor the runner
            reads it, or it leads to a place that the config does not have, or it would put a
            second data_preprocessor beside the one in use. Or a class of this package does
            not take an argument of the config.
    """
    for key, value in (options or {}).items():
        _refuse_other_preprocessor(cfg, key, value, flag)
        first, *parts = key.split('.')
        if first not in cfg and first not in _RUNNER_KEYS:
            raise UserError(
                f'{flag} {key}: the config has no key {first!r} and the runner '
                f'reads none. Keys of this config: {", ".join(sorted(cfg.keys()))}.'
            )
        read = _PARTS_READ.get(first)
        if read and parts and parts[0] not in read:
            raise UserError(f'{flag} {key}: the keys of {first} are {", ".join(sorted(read))}.')
        place = cfg.get(first)
        if parts and place is None and first in cfg:
            raise UserError(
                f'{flag} {key}: {first} is None in this run, and has no settings: leave it out. '
                '(Data without labels have no validation.)'
            )
        for part in parts:
            if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
                place = place[int(part)]
            else:
                place = place.get(part) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(value, str | int | float):
            raise UserError(f'{flag} {key}={value}: {key} is a dict, name a key in it')
        is_word = isinstance(value, str) and _WORDS.get(key) != value
        if isinstance(place, int | float) and is_word:
            kind = 'True or False' if isinstance(place, bool) else 'a number'
            raise UserError(f'{flag} {key}={value}: it is {place} in the config, give {kind}')
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError) as error:
            raise UserError(
                f'{flag} {key}: the config has no such place. {error.args[0]}'
            ) from error
    check_config(cfg)


def _refuse_other_preprocessor(cfg: Config, key: str, value: Any, flag: str) -> None:
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
            f'{flag} {key}: the settings of this config are in {used}, and a second '
            f'data_preprocessor is not merged with them: write {used}{key.removeprefix(other)}'
        )
