"""Learning rates: schedules within a run, and rates for other batches."""

from typing import Any

from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, IterBasedTrainLoop
from mmpretrain.registry import PARAM_SCHEDULERS

from simclr_mm.errors import UserError

_POWERS = {'linear': 1.0, 'sqrt': 0.5}  # of the batch, for auto_scale_lr


def check_schedules(schedulers: Any, loop: BaseLoop) -> None:
    """Refuse ``param_scheduler`` if one of them is not within training.

    Raises:
        UserError: One begins or ends after it, or counts epochs where the loop has none.
    """
    schedulers = schedulers or []
    if isinstance(schedulers, dict) and 'type' in schedulers:
        schedulers = [schedulers]
    for i, scheduler in enumerate(schedulers):
        if not isinstance(scheduler, dict):
            continue
        by_epoch = scheduler.get('by_epoch', True)
        kind = scheduler['type']
        kind = PARAM_SCHEDULERS.get(kind) if isinstance(kind, str) else kind
        if getattr(kind, 'need_val_args', False):
            continue  # ReduceOnPlateau counts validations
        if by_epoch and isinstance(loop, IterBasedTrainLoop):  # it has one epoch for MMEngine
            raise UserError(
                f'param_scheduler.{i} counts epochs, and train_cfg.type = IterBasedTrainLoop '
                'counts iterations: write by_epoch=False in it, and begin and end in '
                'iterations, without convert_to_iter_based'
            )
        limit, unit = ('max_epochs', 'epochs') if by_epoch else ('max_iters', 'iterations')
        length = getattr(loop, limit)
        for key, last in (('begin', length - 1), ('end', length)):
            if scheduler.get(key, 0) > last:
                raise UserError(
                    f'param_scheduler.{i}.{key} = {scheduler[key]} {unit} is not within '
                    f'training, train_cfg.{limit} = {length}. Change one of them, for '
                    f'example with --cfg-options param_scheduler.{i}.{key}=...'
                )


def scales_linearly(auto_scale_lr: dict[str, Any]) -> bool:
    """Whether ``auto_scale_lr`` is as MMEngine knows it: on, and with its rule.

    Raises:
        UserError: There is no such rule, or no ``base_batch_size`` where it is on.
    """
    rule, enabled = auto_scale_lr.get('rule', 'linear'), auto_scale_lr.get('enable', False)
    if rule not in _POWERS:
        raise UserError(
            f"auto_scale_lr.rule = {rule!r}: give 'linear' or 'sqrt', the power of the batch "
            'with which the learning rate grows'
        )
    if enabled and 'base_batch_size' not in auto_scale_lr:
        raise UserError('auto_scale_lr lacks base_batch_size, the batch that lr is for')
    return enabled and rule == 'linear'


def scale_or_warn(
    optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any], batch: int, logger: MMLogger
) -> None:
    """Scale by the root of the batch, or warn of a batch that the rate is not for.

    Args:
        batch: Images of a step of all ranks.
    """
    base = auto_scale_lr.get('base_batch_size', batch)
    rule = auto_scale_lr.get('rule', 'linear')
    ratio = (batch / base) ** _POWERS[rule]
    lr = optim_wrapper.optimizer.param_groups[0]['lr']
    change = f'learning rate {lr:g} is for batches of {base} images, but this job has {batch}'
    if auto_scale_lr.get('enable', False):
        for group in optim_wrapper.optimizer.param_groups:
            group['lr'] *= ratio
        logger.info(f'{change}: the {rule} rule gives {lr * ratio:g}.')
    elif batch != base:
        logger.warning(
            f'{change}: the {rule} rule would give {lr * ratio:g}. Pass '
            '--auto-scale-lr to apply it.'
        )
