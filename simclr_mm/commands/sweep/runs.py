"""Many training runs that differ in what a study varies: their files.

``configs/NAME.py`` is all that a run trains with. ``runs/NAME`` is its work dir: what
it printed in ``log.txt``, checkpoints, and, when it is done, its result as JSON, in the
form of every evaluation.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from simclr_mm.apis.fingerprint import state_hash
from simclr_mm.checkpoints import read_checkpoint
from simclr_mm.commands.evaluate.loop_results import knn_settings, scored_dataset
from simclr_mm.errors import UserError
from simclr_mm.evaluation import PRETRAINED, EvaluationRun, Result, read_run
from simclr_mm.files.atomic import atomic_file

from .cells import Options, Value
from .linear_run import PENALTY
from .studies import STUDIES

Row = dict[str, Value]
METRICS = ('knn', 'linear')


class Run(NamedTuple):
    """One cell of a study.

    Args:
        study: Its name in ``studies.STUDIES``.
        labels: Its value on each axis, by the axis' name.
        work_dir: Folder of the sweep.
        metric: 'knn' or 'linear'.
    """

    study: str
    labels: dict[str, Value]
    work_dir: Path
    metric: str

    @property
    def name(self) -> str:
        name = ','.join(f'{axis}={value}' for axis, value in self.labels.items())
        return re.sub(r'[^\w.,=+-]+', '-', name)

    @property
    def config(self) -> Path:
        return self.work_dir / 'configs' / f'{self.name}.py'

    @property
    def folder(self) -> Path:
        # Not where the config is: MMEngine writes a copy of its own there.
        return self.work_dir / 'runs' / self.name

    @property
    def result_file(self) -> Path:
        return self.folder / f'{self.metric}.json'

    def row(self) -> Row:
        """Its line of the table.

        Raises:
            ValueError: The file is of another version of this package.
        """
        done = read_run(self.result_file)
        if done is None:
            raise UserError(
                f'{self.result_file} is no result of this version: delete '
                'it, and the same command evaluates the run anew'
            )
        (result,) = done.results
        return dict(
            self.labels,
            metric=f'{result.protocol}/{result.metric}',
            value=result.value,
            minutes=round(done.seconds / 60, 2),
        )


def plan(
    study: str, cfg: Config, values: Sequence[Sequence[Value]], work_dir: Path, metric: str
) -> list[Run]:
    """Write the config of every cell, or find the one that is there.

    Args:
        study: Its name in ``studies.STUDIES``.
        cfg: What all runs have in common.
        values: Those of each axis.
        work_dir: Folder of the sweep.
        metric: 'knn' or 'linear'.

    Raises:
        ValueError: The config has no kNN validation, or the folder holds a cell that
            was made from another config.
    """
    if metric == 'knn' and 'KNNAccuracy' not in str(cfg.get('val_evaluator')):
        raise UserError(
            '--evaluate knn reads knn/top1 of the last validation, and '
            'this config has no val_evaluator of type '
            'simclr_mm.KNNAccuracy: take a pretraining config'
        )
    runs = []
    axes = STUDIES[study].axes
    for labels, options in STUDIES[study].cells(cfg, *values):
        labels = dict(zip((axis.name for axis in axes), labels))
        run = Run(study, labels, work_dir, metric)
        write_config(run, cell_config(cfg, options))
        runs.append(run)
    return runs


def cell_config(cfg: Config, options: Options) -> Config:
    """The config of a cell: what a study sets in it, and what all runs have alike."""
    cfg = Config(cfg.to_dict(), filename=cfg.filename)
    cfg.merge_from_dict(options)
    # One validation, at the end, whose result is the row's; one checkpoint.
    common = {
        'train_cfg.val_interval': last_step(cfg),
        'default_hooks.checkpoint.max_keep_ckpts': 1,
    }
    if 'max_epochs' not in cfg.train_cfg:
        # Or MMEngine notes every validation as that of step 0.
        common['default_hooks.logger.log_metric_by_epoch'] = False
    if cfg.get('randomness', {}).get('seed') is None:
        common['randomness.seed'] = 0
    cfg.merge_from_dict(common)
    return cfg


def last_step(cfg: Config) -> int:
    """Epochs of a training, or iterations if its config counts these."""
    return cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters


def write_config(run: Run, cfg: Config) -> None:
    """Write the config of a run, unless it is there.

    Raises:
        ValueError: Another config is there, and was trained with.
    """
    if run.config.is_file():
        if Config.fromfile(run.config).to_dict() == cfg.to_dict():
            return
        trained = [*run.folder.glob('*.pth'), *run.folder.glob('*.json')]
        if trained:
            raise UserError(
                f'{run.config} was made from another config or other --cfg-options, '
                f'and {trained[0]} comes of it: give another --work-dir, or delete '
                f'{run.folder}'
            )
    with atomic_file(run.config) as file:
        file.write(cfg.pretty_text.encode())


def command(run: Run) -> list[str]:
    """What trains this run: anybody may type it."""
    return ['python', 'tools/train.py', str(run.config), '--work-dir', str(run.folder), '--resume']


def result_of(run: Run, value: float) -> Result:
    """Top-1 accuracy in percent on the images of the run's validation."""
    cfg = Config.fromfile(run.config)
    dataset = cfg.val_dataloader.dataset
    settings = dict(penalty=PENALTY)
    if run.metric == 'knn':
        settings = knn_settings(cfg.val_evaluator, dataset)
    return Result(
        'classification',
        *scored_dataset(dataset),
        PRETRAINED,
        run.metric,
        'top1',
        round(value, 4),
        settings,
    )


def evaluation_of(run: Run, result: Result, checkpoint: str, seconds: float) -> EvaluationRun:
    """What a finished run found, in the form of every evaluation.

    Args:
        run: The run.
        result: Its result.
        checkpoint: Its last one, a path.
        seconds: That training and evaluation took.
    """
    return EvaluationRun(
        str(run.config),
        checkpoint,
        state_hash(read_checkpoint(checkpoint)['state_dict']),
        Config.fromfile(run.config).randomness.seed,
        round(seconds, 1),
        [result],
        command=shlex.join(command(run)),
        study=dict(study=run.study, **run.labels),
    )
