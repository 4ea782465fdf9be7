"""One live line on a terminal instead of the log's lines, which stay in the log's file."""

import logging
import sys
import time
from typing import Any

import numpy as np
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from simclr_mm.registry import HOOKS

from .log_interval import is_log_line

_PAUSE = 0.1  # seconds between two pictures of the bar


class _Speed(ProgressColumn):
    """Images a second in the whole job."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images  # of a step

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text('' if speed is None else f'{speed * self.images:,.0f} images/s')


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Show the step, the loss beside chance, images a second and the time left on a terminal.

    While the bar is there, the console shows warnings and errors alone. Without a terminal, such
    as in a pipe or a job, nothing changes. Numbers are those of the log's lines, so nothing waits
    for the device. The first process shows the bar.
    """

    # After the numbers of a line are there.
    priority = 'LOW'

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        console = Console(stderr=True)
        if not dist.is_main_process() or not console.is_terminal or console.is_dumb_terminal:
            return
        images = runner.train_dataloader.batch_size * runner.world_size
        self._progress = Progress(
            TextColumn('step {task.completed:,.0f} of {task.total:,.0f}'),
            BarColumn(bar_width=None),
            TextColumn('{task.fields[numbers]}'),
            _Speed(images),
            TimeRemainingColumn(),
            TextColumn('left'),
            console=console,
            expand=True,
            # A thread could hold the console's lock while workers are forked, and one that
            # warns would wait for ever.
            auto_refresh=False,
        )
        self._task = self._progress.add_task(
            '', total=runner.max_iters, completed=runner.iter, numbers=''
        )
        self._training = self._validation = ''
        self._shown = 0.0
        self._progress.start()
        # Through the bar, which then moves down.
        self._consoles = [each for each in runner.logger.handlers if _is_console(each)]
        self._before = [(each.stream, each.level) for each in self._consoles]
        for each in self._consoles:
            each.setStream(sys.stderr)
            each.setLevel(max(each.level, logging.WARNING))

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        if self._progress is None:
            return
        scalars = runner.message_hub.log_scalars
        if is_log_line(self, runner, batch_idx) and 'train/loss' in scalars:
            steps = runner.log_processor.window_size  # as in the log's line
            self._training = f'loss {scalars["train/loss"].mean(steps):.4f}'
            if 'train/chance' in scalars:
                self._training += f' (chance {scalars["train/chance"].mean(steps):.4f})'
        self._show(completed=runner.iter + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        numbers = ((key, value) for key, value in (metrics or {}).items() if np.ndim(value) == 0)
        first = next(numbers, None)  # not a confusion matrix
        if self._progress is not None and first is not None:
            self._validation = f', {first[0]} {float(first[1]):.2f}'
            self._show()

    def _show(self, **values: Any) -> None:
        assert self._progress is not None
        now = time.monotonic()
        due = now - self._shown >= _PAUSE
        self._shown = now if due else self._shown
        numbers = self._training + self._validation
        self._progress.update(self._task, numbers=numbers, refresh=due, **values)

    def after_train(self, runner: Runner) -> None:
        self.stop()

    def stop(self) -> None:
        """Give the terminal back; the runner calls it whatever ends a training."""
        if self._progress is None:
            return
        for each, (stream, level) in zip(self._consoles, self._before):
            each.setStream(stream)
            each.setLevel(level)
        self._progress.stop()
        self._progress = None


def _is_console(handler: logging.Handler) -> bool:
    return type(handler) is logging.StreamHandler
