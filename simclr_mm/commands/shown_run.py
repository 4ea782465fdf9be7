"""A training that shows a bar instead of its log, and the picture of the run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simclr_mm.commands.command_line import build_runner
from simclr_mm.datasets import SampleIndex
from simclr_mm.engine.runner import quiet_console
from simclr_mm.evaluation import Labelled
from simclr_mm.visualization import plot_report, read_scalars

_PAIRS = 8  # images whose views are in the picture
_SHOWN = 200  # losses that a bar shows: reading one waits for the device


class _Bar(Hook):
    """Moves a bar with each step, and shows epoch and loss."""

    priority = 'LOWEST'

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.task = bar.add_task('training', total=None)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        done, total = runner.iter + 1, runner.max_iters
        if done % max(1, total // _SHOWN) == 0 or done == total:
            loss, chance = (float(outputs[key].detach()) for key in ('loss', 'chance'))
            text = f'epoch {runner.epoch + 1}/{runner.max_epochs}, loss {loss:.2f} ({chance:.2f})'
            self.bar.update(self.task, description=text, total=total, completed=done)


def train_with_bar(cfg: Config) -> Runner:
    """Train a config. The log goes to its file, and warnings also to the terminal.

    The bar shows the loss, and behind it the loss by chance.
    """
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn()) as bar, quiet_console():
        runner = build_runner(cfg)
        runner.register_hook(_Bar(bar))
        runner.train()
    return runner


def draw_run(
    path: Path,
    runner: Runner,
    logs: Sequence[Path],
    embedded: Labelled,
    classes: Sequence[str],
    title: str,
) -> None:
    """Draw the loss, some views and a map of features of a run.

    Args:
        logs: Folders of the run's logs, several if it was continued.
        embedded: Features (n, C), and labels (n,) as indices of ``classes``.
    """
    dataset = runner.train_dataloader.dataset
    rows = range(min(_PAIRS, len(dataset)))
    drawn = torch.stack([dataset[SampleIndex(i, seed=0)]['inputs'] for i in rows])
    views = drawn.flip(2).permute(0, 1, 3, 4, 2).numpy()  # (PAIRS, V, S, S, 3), RGB
    files = [log / 'vis_data' / 'scalars.json' for log in logs]
    scalars = [entry for file in files if file.exists() for entry in read_scalars(file)]
    plot_report(str(path), scalars, views, *embedded, classes, title)
