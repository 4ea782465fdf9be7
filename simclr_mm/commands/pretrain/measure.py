"""The time of a training step, measured on the user's images and machine."""

import tempfile
import time

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from simclr_mm.commands.command_line import build_runner, remove_validation
from simclr_mm.engine.runner import quiet_console

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
    cfg = Config(cfg.to_dict())
    remove_validation(cfg)
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.train_cfg = dict(type='simclr_mm.IterBasedTrainLoop', max_iters=_STEPS)
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint = None
    cfg.default_hooks.learning_watch = cfg.default_hooks.progress = None
    cfg.visualizer.vis_backends = []
    times = _Times()
    with tempfile.TemporaryDirectory() as folder, quiet_console():
        cfg.work_dir = folder
        runner = build_runner(cfg)
        runner.register_hook(times)
        runner.train()
    return (times.ends[-1] - times.ends[_WARM - 1]) / (_STEPS - _WARM)
