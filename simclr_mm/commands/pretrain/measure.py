"""The time of a training step, measured on the user's images and machine."""

import time

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from simclr_mm.engine.dry_run import short_run

_STEPS, _WARM = 12, 4  # steps that are done, and those of them that do not count


class _Times(Hook):
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        float(outputs['loss'].detach())  # waits for the device
        self.ends.append(time.perf_counter())


def seconds_a_step(cfg: Config) -> float:
    """Mean time of a step, after a few that start workers and warm up the device.

    Raises:
        UserError: The config cannot be built, for example because images cannot be read.
    """
    times = _Times()
    short_run(cfg, _STEPS, times)
    return (times.ends[-1] - times.ends[_WARM - 1]) / (_STEPS - _WARM)
