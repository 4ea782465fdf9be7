"""The settings that a resumed run may change, and those that all ranks must share.

:func:`settings` lists the settings on which a run's losses depend. docs/concepts.md states
the rule for users.
"""

import re
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger

from simclr_mm.checkpoints.stored_config import parse_settings
from simclr_mm.errors import CheckpointError, MissingFileError, UserError, listed
from simclr_mm.files import storage
from simclr_mm.registry import type_name

# Keys in the message hub, and so in checkpoints. MMEngine logs those that begin with 'val'.
LAYOUT, SAMPLER_SEED = 'data_layout', 'sampler_seed'
EARLY_STOPPING, VALIDATED = 'early_stopping', 'iter_of_validation'
POINTER = 'last_checkpoint'  # a file that names the newest checkpoint
_PARTS = (
    'auto_scale_lr',
    'data_preprocessor',
    'model',
    'optim_wrapper',
    'param_scheduler',
    'randomness',
    'sync_bn',
    'train_cfg',
    'train_dataloader',
)
# Parts in which ranks wait for each other, such as validation and log.
_STEPS = (
    *('custom_hooks', 'default_hooks', 'log_processor', 'resume', 'val_cfg', 'val_evaluator'),
    *('activation_checkpointing', 'find_unused_parameters', 'model_wrapper_cfg'),
)
_PLACES = {'data_root', 'data_prefix', 'ann_file', 'cache_dir', 'metainfo', 'out_dir', 'init_cfg'}
_PLACES |= {'teacher'}  # check_teacher compares the file itself
# At any depth, these keys change speed, paths or the log, but no loss.
_FREE = _PLACES | {
    *('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'worker_init_fn'),
    *('val_begin', 'val_interval', 'dynamic_intervals'),
    *('compile_backbone', 'with_cp', 'foreach', 'fused', 'deterministic'),
}
# A resumed run takes these from the checkpoint, so another value would have no effect.
_FIXED = (
    'auto_scale_lr',
    'model.online_probe',  # the optimizer's state has its parameters, or has not
    'optim_wrapper',
    'param_scheduler',
    'randomness',
    'train_cfg',
    'train_dataloader.drop_last',
    'train_dataloader.sampler',
)
TEACHER = 'teacher_sha256'  # key in a checkpoint's meta
_LENGTH = ('train_cfg.max_epochs', 'train_cfg.max_iters')
_SEEDS = ('randomness.seed', 'train_dataloader.sampler.seed')
# The precision may follow the device.
_PRECISION = ('optim_wrapper.type', 'optim_wrapper.dtype', 'optim_wrapper.loss_scale')


def settings(cfg: dict) -> dict[str, Any]:
    """The settings of a config on which the losses depend, by dotted key."""
    found = _flatten({part: cfg.get(part) for part in _PARTS}, _FREE)
    if not found.get('auto_scale_lr.enable'):
        found = {key: found[key] for key in found if not key.startswith('auto_scale_lr')}
    return found


def shared_settings(cfg: dict) -> dict[str, Any]:
    """The settings that all ranks must share, by dotted key: all except paths."""
    found = _flatten({part: cfg.get(part) for part in (*_PARTS, *_STEPS)}, _PLACES)
    return {**found, 'load_from': 'a file' if cfg.get('load_from') else None}


def _flatten(value: Any, free: set[str], key: str = '') -> dict[str, Any]:
    if isinstance(value, dict):
        items = [(name, value[name]) for name in value if name not in free]
    elif isinstance(value, (list, tuple)) and any(isinstance(each, dict) for each in value):
        items = [(str(place), each) for place, each in enumerate(value)]
    elif value is None or value == []:
        return {}
    elif isinstance(value, (str, int, float, list, tuple)) and not key.endswith('.type'):
        return {key: _as_list(value)}
    else:
        named = isinstance(value, str) or hasattr(value, '__name__')
        return {key: type_name(value if named else type(value))}
    flat: dict[str, Any] = {}
    for name, part in items:
        flat.update(_flatten(part, free, f'{key}.{name}' if key else name))
    return flat


def _as_list(value: Any) -> Any:
    """Lists for tuples, because a config does not distinguish them."""
    return [_as_list(each) for each in value] if isinstance(value, (list, tuple)) else value


def latest_checkpoint(work_dir: str, store: str = '') -> str | None:
    """The newest checkpoint of a run.

    Args:
        work_dir: May have been moved.
        store: URL of a folder. If it names a checkpoint, that one is taken.
    """
    named = storage.read(f'{store}/{POINTER}') if store else None
    if named is not None:
        return f'{store}/{Path(named.decode().strip()).name}'
    name = Path(work_dir, POINTER)
    if not name.is_file():
        return None
    saved = name.read_text().strip()
    here = Path(work_dir, Path(saved).name)
    if here.is_file():
        return str(here)
    if not storage.is_url(saved) and not Path(saved).is_file():
        raise MissingFileError(
            f'{name} names {saved or "nothing"}, no file that is there: put it back, name another '
            'checkpoint to resume, or remove last_checkpoint to start again'
        )
    return saved


def former_ranks(
    checkpoint: dict, source: str, ranks: int, batch_size: int
) -> tuple[int, int] | None:
    """Ranks and batch size of a stopped run, if this run has to deal its batches anew.

    Args:
        checkpoint: Of the stopped run.
        source: Its name.
        ranks: Of this run.
        batch_size: ``train_dataloader.batch_size`` of this run's config: as before, or so that the
            ranks together take as many images as before.

    Returns:
        None if nothing changed, or if the batch of all ranks is another one.

    Raises:
        UserError: These ranks cannot share the batch equally.
    """
    info = (checkpoint.get('message_hub') or {}).get('runtime_info') or {}
    found = re.match('[0-9]+ images in [0-9]+ steps of ([0-9]+) x ([0-9]+)', str(info.get(LAYOUT)))
    if found is None:
        return None
    before = int(found[1]), int(found[2])
    images = before[0] * before[1]
    same_config = batch_size == before[1] and ranks != before[0]
    if before == (ranks, batch_size) or not (same_config or ranks * batch_size == images):
        return None
    if images % ranks:
        raise UserError(
            f'--resume: {source} was saved by a run with {images} images a step, which {ranks} '
            f'processes cannot share equally: take a number of processes that divides {images}.'
        )
    return before


def check_resumable(checkpoint: dict, cfg: dict, source: str, logger: MMLogger) -> None:
    """Refuse a checkpoint that holds no run, or another run than this config's.

    Changed settings that a resumed run would ignore are an error. Other changed settings that
    affect losses are used, and named in the log.

    Raises:
        CheckpointError: It holds only weights.
        UserError: The schedule, the optimizer, the order of images or the seed differ.
    """
    anew = f'start again from its weights: --cfg-options load_from={source}, without --resume'
    meta = checkpoint.get('meta') or {}
    if not {'epoch', 'iter'} <= set(meta) or not {'optimizer', 'message_hub'} <= set(checkpoint):
        raise CheckpointError(
            f'--resume: {source} holds weights and no state of the optimizer, as a best or '
            f'published checkpoint does: take an epoch_*.pth or iter_*.pth, or {anew}.'
        )
    try:
        before = settings(parse_settings(meta['cfg']))
    except Exception:  # the text may hold anything
        logger.warning(f'{source} holds no readable config to compare this run with.')
        return
    now = settings(cfg)
    if meta.get('seed') is not None:
        before['randomness.seed'] = meta['seed']
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    keys = [key for key in keys if key not in _SEEDS or now.get(key) is not None]
    if not _depends_on_length(now):
        keys = [key for key in keys if key not in _LENGTH]
    changes = {key: f'{key} = {now.get(key)!r} (was {before.get(key)!r})' for key in keys}
    fixed = [changes[key] for key in keys if key.startswith(_FIXED) and key not in _PRECISION]
    if fixed:
        raise UserError(
            f'--resume: {source} was saved with other settings, and a resumed run cannot '
            f'change {listed(fixed)}: take the old value, or {anew}.'
        )
    used = [text for key, text in changes.items() if key != 'train_dataloader.batch_size']
    if used:
        logger.warning(
            f'{source} was saved with other settings. From here on the run uses {listed(used)}.'
        )


def check_teacher(checkpoint: dict, sha256: str, source: str) -> None:
    """Refuse a checkpoint of a student that had another teacher, by the hash of its file."""
    before = checkpoint['meta'].get(TEACHER, '')
    if before != sha256:
        raise UserError(
            f'--resume: the teacher of {source} has the SHA-256 {before[:8] or "none"}, and '
            f'model.teacher has {sha256[:8] or "none"}: name the file that the run began with'
        )


def _depends_on_length(now: dict[str, Any]) -> bool:
    """Whether a schedule has no end of its own and ends with the run."""
    types = [key for key in now if key.startswith('param_scheduler.') and key.endswith('.type')]
    return any(f'{key.removesuffix("type")}end' not in now for key in types)
