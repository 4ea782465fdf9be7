"""One of many training runs, and its files.

``configs/NAME.py`` is its full config. ``runs/NAME`` is its work dir, with its output in
``log.txt``, its checkpoints and finally its result as JSON.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from simclr_mm.errors import UserError
from simclr_mm.evaluation import EvaluationRun, Value, read_run
from simclr_mm.files.atomic import write_csv, write_text
from simclr_mm.visualization.loss import read_log

Row = dict[str, Value]


class RunFailed(Exception):
    """A run without a result. The message says why, and where to read more."""


class Run(NamedTuple):
    """A training that differs from others in a few settings."""

    study: str  # a study of simclr-mm sweep, or 'fine-tuning'
    labels: dict[str, Value]  # values of the settings that vary, by name
    work_dir: Path  # folder of all runs
    metric: str  # metric of its result, such as 'knn' or 'top1'; it names the result's file

    @property
    def name(self) -> str:
        name = ','.join(f'{setting}={value}' for setting, value in self.labels.items())
        return re.sub(r'[^\w.,=+-]+', '-', name)

    @property
    def config(self) -> Path:
        return self.work_dir / 'configs' / f'{self.name}.py'

    @property
    def folder(self) -> Path:
        # MMEngine writes its own copy of the config here, so ours has another folder.
        return self.work_dir / 'runs' / self.name

    @property
    def result_file(self) -> Path:
        return self.folder / f'{self.metric}.json'

    @property
    def arguments(self) -> list[str]:
        """Arguments of simclr-mm train that train this run, or continue it."""
        return [str(self.config), '--work-dir', str(self.folder), '--resume']

    def validated(self, metric: str) -> float:
        """A metric of the validation at the end of the training, by its name in the log."""
        last = last_step(Config.fromfile(self.config))
        for log in sorted(self.folder.glob('*/vis_data/scalars.json'), reverse=True):
            for entry in reversed(read_log(log)):
                if entry['step'] == last and metric in entry:
                    return entry[metric]
        raise RunFailed(
            f'{self.folder} holds a finished training but no {metric} of a validation at '
            'its end: delete the folder to train anew'
        )

    def write_config(self, cfg: Config) -> None:
        """Write the config of the run. Another config that a training used is a UserError.

        Worker processes change no result, so another number of them is no other config.
        """
        if self.config.is_file():
            if _without_workers(Config.fromfile(self.config)) == _without_workers(cfg):
                write_text(self.config, cfg.pretty_text)
                return
            trained = [*self.folder.glob('*.pth'), *self.folder.glob('*.json')]
            if trained:
                raise UserError(
                    f'{self.config} was made from another config, checkpoint or --cfg-options, '
                    f'and {trained[0]} comes from it: give another --work-dir, or delete '
                    f'{self.folder}'
                )
        write_text(self.config, cfg.pretty_text)

    def row(self) -> Row:
        """The row of the table."""
        done = read_run(self.result_file)
        if done is None:
            raise UserError(
                f'{self.result_file} is no result of this version: delete '
                'it, and the same command evaluates the run again'
            )
        (result,) = done.results
        return dict(
            self.labels,
            metric=f'{result.protocol}/{result.metric}',
            value=result.value,
            minutes=round(done.seconds / 60, 2),
        )


def _without_workers(cfg: Config) -> dict[str, Any]:
    settings = cfg.to_dict()
    # The place of a teacher, whose hash a resumed training compares.
    (settings.get('model') or {}).pop('teacher', None)
    for phase in ('train', 'val', 'test'):
        for key in ('num_workers', 'persistent_workers'):
            (settings.get(f'{phase}_dataloader') or {}).pop(key, None)
    return settings


def last_step(cfg: Config) -> int:
    """Epochs of a training, or iterations if its config counts these."""
    return cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters


def tell(run: Run, outcome: EvaluationRun | RunFailed) -> None:
    """Print the result of a run, or why it failed."""
    if isinstance(outcome, RunFailed):
        print(f'{run.name}: FAILED: {outcome}')
        return
    result, minutes = outcome.results[0], outcome.seconds / 60
    value = f'{result.protocol} {result.metric} {result.value:.2f} %'
    print(f'{run.name}: {value}, {minutes:.2f} minutes')


def write_table(path: Path, axes: Sequence[str], rows: Sequence[Row]) -> None:
    """Write one line for each run as CSV: its value on each axis, metric, value and minutes."""
    columns = [*axes, 'metric', 'value', 'minutes']
    write_csv(path, columns, ([row[name] for name in columns] for row in rows))
