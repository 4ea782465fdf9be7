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
        tensors = [
            (value.cpu() if value.device.type == 'mps' else value).double().reshape(())
            for _, value in values
            if isinstance(value, Tensor)
        ]
        # One copy from a GPU, but for MPS, which has no float64. It holds every float32 and every
        # count. What is only logged may be on the CPU.
        read = {
            on_cpu: iter(torch.stack(some).tolist())
            for on_cpu in (False, True)
            if (some := [each for each in tensors if each.is_cpu == on_cpu])
        }
        kinds = iter(each.is_cpu for each in tensors)
        for key, value in values:
            number = next(read[next(kinds)]) if isinstance(value, Tensor) else value
            runner.message_hub.update_scalar(f'train/{key}', number)
        self._waiting = []
