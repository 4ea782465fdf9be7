"""One training run of many, and its files.

``configs/NAME.py`` is all that a run trains with. ``runs/NAME`` is its work dir: what it
printed in ``log.txt``, its checkpoints, and, when it is done, its result as JSON, in the
form of every evaluation.
"""

import re
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from simclr_mm.errors import UserError
from simclr_mm.evaluation import Value, read_run
from simclr_mm.files.atomic import atomic_file
from simclr_mm.visualization.loss import read_log

Row = dict[str, Value]


class Run(NamedTuple):
    """A training that differs from others in a few settings.

    Args:
        study: What varies among the runs: a study of tools/sweep.py, or 'fine-tuning'.
        labels: The value of each setting that varies, by the setting's name.
        work_dir: Folder of all runs.
        metric: What its result is, such as 'knn' or 'top1'. It names the result's file.
    """

    study: str
    labels: dict[str, Value]
    work_dir: Path
    metric: str

    @property
    def name(self) -> str:
        name = ','.join(f'{setting}={value}' for setting, value in self.labels.items())
        return re.sub(r'[^\w.,=+-]+', '-', name)

    @property
    def config(self) -> Path:
        return self.work_dir / 'configs' / f'{self.name}.py'

    @property
    def folder(self) -> Path:
        # MMEngine writes its own copy of the config here, so ours lies elsewhere.
        return self.work_dir / 'runs' / self.name

    @property
    def result_file(self) -> Path:
        return self.folder / f'{self.metric}.json'

    @property
    def arguments(self) -> list[str]:
        """Those of tools/train.py that train this run, or go on training it."""
        return [str(self.config), '--work-dir', str(self.folder), '--resume']

    def row(self) -> Row:
        """The line of the table."""
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


def last_step(cfg: Config) -> int:
    """Epochs of a training, or iterations if its config counts these."""
    return cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters


def last_validation(run: Run, metric: str) -> float | None:
    """A metric of the validation at the end of a run, by its name in the log, if it is there."""
    last = last_step(Config.fromfile(run.config))
    for log in sorted(run.folder.glob('*/vis_data/scalars.json'), reverse=True):
        for entry in reversed(read_log(log)):
            if entry['step'] == last and metric in entry:
                return entry[metric]
    return None


def write_config(run: Run, cfg: Config) -> None:
    """Write the config of a run; another one that was trained with is a UserError."""
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
