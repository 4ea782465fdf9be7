"""Read the log's numbers from the device once per log line."""

import torch
from mmengine.hooks import RuntimeInfoHook as _RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from simclr_mm.registry import HOOKS

from ..resume import VALIDATED
from .log_interval import is_log_line


@HOOKS.register_module()
class RuntimeInfoHook(_RuntimeInfoHook):
    """MMEngine's hook, without waiting for the device in every step.

    The model's outputs stay on the device until the logger writes, the epoch ends, or
    a validation or checkpoint starts. Then all steps since are read in one copy, so
    the log's averages equal MMEngine's to the last bit.

    Differs: MMEngine reads each value of each step, which stops the host until the
    device has finished the step.
    """

    def __init__(self) -> None:
        self._waiting: list[dict] = []  # outputs of the steps since the last reading

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        # AutocastOptimWrapper's gradient norm of this step is logged with the outputs.
        clipped = getattr(runner.optim_wrapper, 'clipped', {})
        self._waiting.append(
            {
                key: value.detach() if isinstance(value, Tensor) else value
                for key, value in {**(outputs or {}), **clipped}.items()
            }
        )
        if is_log_line(self, runner, batch_idx) or self.is_last_train_iter(runner):
            self._read(runner)

    def before_val(self, runner: Runner) -> None:
        self._read(runner)
        super().before_val(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info(VALIDATED, runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._read(runner)
        checkpoint['message_hub'] = runner.message_hub.state_dict()

    def _read(self, runner: Runner) -> None:
        values = [item for outputs in self._waiting for item in outputs.items()]
        # One copy for all that is on a GPU; what is only logged may be on the CPU. float64 holds
        # every float32 and every count, and MPS has none.
        there = [value for _, value in values if isinstance(value, Tensor) and value.is_cuda]
        numbers = iter(
            torch.stack([each.double().reshape(()) for each in there]).tolist() if there else ()
        )
        for key, value in values:
            number = value
            if isinstance(value, Tensor):
                number = next(numbers) if value.is_cuda else float(value)
            runner.message_hub.update_scalar(f'train/{key}', number)
        self._waiting = []
