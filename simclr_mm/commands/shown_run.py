"""A training that shows a bar instead of its log, and the picture of the run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from simclr_mm.datasets import SampleIndex
from simclr_mm.engine import build_runner
from simclr_mm.engine.console import quiet_console
from simclr_mm.evaluation import Labelled
from simclr_mm.visualization import plot_report, read_scalars

_PAIRS = 8  # images whose views are in the picture


def train_with_bar(cfg: Config) -> Runner:
    """Train a config. The log goes to its file, and warnings also to the terminal.

    On a terminal :class:`~simclr_mm.engine.ProgressBarHook` shows a bar.
    """
    with quiet_console():
        runner = build_runner(cfg)
        runner.train()
    return runner


def draw_run(
    path: Path,
    runner: Runner,
    logs: Sequence[Path],
    embedded: Labelled,
    classes: Sequence[str],
    title: str,
    shown: str = 'features of test images',
) -> None:
    """Draw the loss, some views and a map of features of a run.

    Args:
        logs: Folders of the run's logs, several if it was continued.
        embedded: Features (n, C), and labels (n,) as indices of ``classes``.
        shown: What ``embedded`` are, over the map.
    """
    dataset = runner.train_dataloader.dataset
    rows = range(min(_PAIRS, len(dataset)))
    drawn = torch.stack([dataset[SampleIndex(i, seed=0)]['inputs'] for i in rows])
    views = drawn.flip(2).permute(0, 1, 3, 4, 2).numpy()  # (PAIRS, V, S, S, 3), RGB
    files = [log / 'vis_data' / 'scalars.json' for log in logs]
    scalars = [entry for file in files if file.exists() for entry in read_scalars(file)]
    plot_report(str(path), scalars, views, *embedded, classes, title, shown)
