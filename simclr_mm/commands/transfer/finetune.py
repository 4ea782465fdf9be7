"""Transfer learning by fine-tuning the whole network: a grid of training runs.

Source: SimCLR, arXiv:2002.05709, Sec. B.8.1. simclr-mm train trains each cell of the grid
from a config file.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from mmengine.config import Config

from simclr_mm.apis.encoder import Encoder
from simclr_mm.commands.runs import Run, RunFailed, Slurm, TrainAndEvaluate
from simclr_mm.errors import listed
from simclr_mm.evaluation import PRETRAINED, Result, Value

from .dataset_table import Parts, TransferDataset
from .finetune_config import LOGGED, Training, finetune_config
from .linear import inputs_hash, prepared, results_of

STUDY, PROTOCOL = 'fine-tuning', 'fine-tuned'

Grid = tuple[Sequence[float], Sequence[float]]
# Learning rates, and weight decays before they are divided by the learning rate.
GRIDS: dict[str, Grid] = dict(
    paper=(np.logspace(-4, -1, 7).tolist(), [0.0, *np.logspace(-6, -3, 7).tolist()]),
    # Three of the paper's rates and two of its decays.
    small=([10**-2.5, 1e-2, 10**-1.5], [0.0, 1e-6]),
)


def plan(
    cfg: Config, cells: Sequence[tuple[float, float]], work_dir: Path, metric: str
) -> list[Run]:
    runs = []
    for lr, decay in cells:
        cell = Config(cfg.to_dict())
        # "We divide these values of weight decay by the learning rate."
        cell.optim_wrapper.optimizer.update(lr=lr, weight_decay=decay / lr)
        labels: dict[str, Value] = dict(lr=f'{lr:.3g}', decay=f'{decay:.3g}')
        run = Run(STUDY, labels, work_dir, metric)
        run.write_config(cell)
        runs.append(run)
    return runs


class FineTune(TrainAndEvaluate):
    """The result of a cell is its last validation."""

    def __init__(
        self, dataset: str, split: str, processes: int, slurm: Slurm | None = None
    ) -> None:
        super().__init__(processes, slurm)
        self.dataset = dataset
        self.split = split

    def evaluate(self, run: Run, checkpoint: str, device: str) -> Result:
        value = round(run.validated(LOGGED[run.metric][1]), 4)
        scored = 'transfer', self.dataset, self.split, PRETRAINED, PROTOCOL, run.metric
        return Result(*scored, value)

    def do_all(self, runs: list[Run], description: str) -> list[Run]:
        """Do the missing runs. Returns those with a result, without those that diverged.

        Another failure is a RunFailed, and so is it if all diverged.
        """
        failed = self.do_missing(runs, f'{self.dataset}: {description}')
        diverged = [run for run in runs if run.name in failed and _not_finite(run)]
        if len(diverged) < len(failed) or len(diverged) == len(runs):
            name, reason = next(iter(failed.items()))
            raise RunFailed(f'{len(failed)} of {len(runs)} runs failed, {name}: {reason}')
        if diverged:
            names = listed(run.name for run in diverged)
            print(f'{self.dataset}: {len(diverged)} of {len(runs)} runs diverged: {names}')
        return [run for run in runs if run not in diverged]


def _not_finite(run: Run) -> bool:
    return any(run.folder.glob('non_finite_step_*.json'))  # of NonFiniteGuardHook


def finetune_settings(encoder: Encoder, grid: Grid, training: Training) -> dict[str, Value]:
    """The requested settings of a result."""
    cells = len(grid[0]) * len(grid[1])
    return dict(prepared(encoder), steps=training.steps, batch=training.batch, cells=cells)


def finetune_transfer(
    encoder: Encoder,
    weights: Path,
    dataset: TransferDataset,
    parts: Parts,
    grid: Grid,
    training: Training,
    work_dir: Path,
    processes: int,
    slurm: Slurm | None = None,
) -> list[Result]:
    """Choose rate and decay on the validation part, retrain on all images, score the test.

    The work dir gets the grid in ``HASH/validation/`` and the last run in ``HASH/test/``.
    Finished runs of the same encoder and images, which the hash names, are not repeated.
    """
    work_dir = work_dir / inputs_hash(encoder, dataset, parts)
    metric = dataset.metrics[0]
    cfg = finetune_config(encoder, weights, dataset, parts.fit, parts.validation, training)
    cells = list(product(*grid))
    runs = plan(cfg, cells, work_dir / 'validation', metric)
    trainer = FineTune(dataset.title, 'validation', processes, slurm)
    finished = trainer.do_all(runs, 'fine-tuning')
    scores = [run.row()['value'] for run in finished]
    lr, decay = cells[runs.index(finished[int(np.argmax(scores))])]
    cfg = finetune_config(encoder, weights, dataset, parts.train, parts.test, training)
    last = plan(cfg, [(lr, decay)], work_dir / 'test', metric)
    FineTune(dataset.title, dataset.test, 1, slurm).do_all(last, 'the chosen one on all images')
    settings: dict[str, Value] = dict(
        finetune_settings(encoder, grid, training), lr=lr, decay=decay, validation=max(scores)
    )
    if len(finished) < len(runs):
        settings['diverged'] = len(runs) - len(finished)
    values = {name: last[0].validated(LOGGED[name][1]) / 100 for name in dataset.metrics}
    return results_of(dataset, PROTOCOL, values, settings)
