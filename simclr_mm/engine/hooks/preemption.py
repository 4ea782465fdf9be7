"""Save and stop when the machine is about to be taken away."""

import gc
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from mmengine import dist
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import Tensor

from simclr_mm.errors import UserError
from simclr_mm.registry import HOOKS

from .. import signals
from .checkpoint_hook import CheckpointHook

PREEMPTED = 75  # the exit code: EX_TEMPFAIL of sysexits.h, "try again later"


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On a signal, save a checkpoint after the next step or two, and end with exit code 75.

    The signal may reach one rank or all. After each step, of training or validation, the ranks
    exchange one number whether a signal has come. It is read after the step that follows, when it
    has long arrived: so no step waits, and all ranks stop after the same one. A process alone
    stops after the step in which the signal came. If the checkpoint hook has just saved, nothing
    is saved again. With an EMAHook a validation ends first. ``--resume`` goes on with the losses of
    a run that was never stopped.

    A second signal, more than five seconds later, ends the process at once.

    Args:
        signals: Names of the signals. Clusters send SIGTERM some time before SIGKILL.
            ``tools/slurm_train.sh`` asks Slurm for SIGUSR2. SIGUSR1 also works, but some
            libraries use it themselves.

    Raises:
        UserError: A name is not a signal that a process can handle, or another checkpoint hook
            would save nothing.
        SystemExit: With code 75, after the checkpoint is complete.
    """

    # After CheckpointHook (90), whose checkpoint of this step may be there already.
    priority = 95

    def __init__(self, signals: Sequence[str] = ('SIGTERM', 'SIGUSR2')) -> None:
        self.signals = [_signal(name) for name in signals]
        self._flags: deque[Callable[[], bool]] = deque()  # of steps that are not read yet
        self._listens = False
        self._everywhere = True  # whether a validation may be ended between its steps

    def before_train(self, runner: Runner) -> None:
        savers = [hook for hook in runner.hooks if isinstance(hook, MMEngineCheckpointHook)]
        if savers and not any(isinstance(hook, CheckpointHook) for hook in savers):
            raise UserError(
                "default_hooks.checkpoint is MMEngine's CheckpointHook, which saves nothing when a "
                "job is ended: write type='simclr_mm.CheckpointHook', which has its arguments, or "
                'default_hooks.preemption=None'
            )
        self._listens = True
        if threading.current_thread() is threading.main_thread():  # else Python forbids it
            signals.listen(self.signals)

    def after_train(self, runner: Runner) -> None:
        self._listens = False
        while self._flags:
            self._flags.popleft()()

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if self._said(runner):
            self._stop(runner, runner.iter + 1)

    def before_val(self, runner: Runner) -> None:
        if self._listens:
            steps = dist.all_gather_object(len(runner.val_dataloader))
            # While EMAHook validates, the model has the averaged weights, which are not to be saved
            # as those of the training.
            averaged = any(isinstance(hook, EMAHook) for hook in runner.hooks)
            self._everywhere = len(set(steps)) == 1 and not averaged

    def after_val_iter(self, runner: Runner, *args, **kwargs) -> None:
        if self._listens and self._everywhere and self._said(runner):
            self._stop(runner, runner.iter)  # the loop has counted the step already

    def _said(self, runner: Runner) -> bool:
        """Whether any rank had a signal at the end of the step before, or this process alone."""
        come = signals.received() is not None
        if runner.world_size == 1:
            return come
        self._flags.append(_shared(come, next(runner.model.parameters()).device))
        return len(self._flags) > 1 and self._flags.popleft()()

    def _stop(self, runner: Runner, iteration: int) -> NoReturn:
        reason = signals.received()
        while self._flags:  # every rank has sent as many
            self._flags.popleft()()
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        for hook in hooks:
            hook.save_between(runner, runner.epoch, iteration)
        dist.barrier()  # a launcher ends all ranks as soon as one has ended
        signals.ignore()
        kept = f'{hooks[0].last_ckpt} is complete' if hooks else 'there is no checkpoint hook'
        runner.logger.warning(
            f'{reason.name if reason else "A signal to another rank"}: stopped after iteration '
            f'{iteration}; {kept}. To go on, repeat the command (train: with --resume).'
        )
        gc.freeze()  # else the end of Python takes seconds of CPU, and a busy machine has few
        raise SystemExit(PREEMPTED)


def _shared(value: bool, device: torch.device) -> Callable[[], bool]:
    """Begin to tell all ranks. The returned function says whether any of them has said True."""
    flag = torch.full((), float(value), device=device)  # torch.tensor would wait for the device
    work = torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, async_op=True)
    if device.type != 'cuda':
        return lambda: work.wait() and bool(flag)
    work.wait()  # the stream does, not the host
    result = torch.empty_like(flag, device='cpu', pin_memory=True)
    result.copy_(flag, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return lambda: bool(_after(copied, result))


def _after(event: torch.cuda.Event, result: Tensor) -> Tensor:
    event.synchronize()
    return result


def _signal(name: str) -> signal.Signals:
    number = getattr(signal.Signals, str(name), None)
    if number in (None, signal.SIGKILL, signal.SIGSTOP):
        raise UserError(
            f'default_hooks.preemption.signals: {name!r} cannot be handled; write names such as '
            "'SIGTERM' or 'SIGUSR2'"
        )
    return number
