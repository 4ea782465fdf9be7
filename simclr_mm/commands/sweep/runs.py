"""The runs of a study, one for each cell."""

import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from simclr_mm.commands.evaluate.loop_results import knn_settings, scored_dataset
from simclr_mm.commands.runs import Run, TrainAndEvaluate, last_step, write_config
from simclr_mm.errors import UserError
from simclr_mm.evaluation import PRETRAINED, Result, Value
from simclr_mm.registry import type_name

from .cells import Options
from .linear_run import PENALTY
from .studies import STUDIES

METRICS = ('knn', 'linear')


class TrainAndScore(TrainAndEvaluate):
    """Scores a run by kNN of its last validation, or by a linear probe of its last checkpoint."""

    def evaluate(self, run: Run, checkpoint: str, device: str) -> Result:
        cfg = Config.fromfile(run.config)
        dataset = cfg.val_dataloader.dataset
        settings: dict[str, Value] = dict(penalty=PENALTY)
        if run.metric == 'knn':
            value = self.validated(run, 'knn/top1')
            settings = {**knn_settings(cfg.val_evaluator, dataset)}
        else:
            value = self._linear(run, checkpoint, device)
        scored = scored_dataset(dataset)
        return Result(
            'classification', *scored, PRETRAINED, run.metric, 'top1', round(value, 4), settings
        )

    def _linear(self, run: Run, checkpoint: str, device: str) -> float:
        file = run.folder / 'linear_value.json'
        files = [str(run.config), checkpoint, str(file)]
        self.call(run, ['-m', 'simclr_mm.commands.sweep.linear_run', *files], device)
        return json.loads(file.read_text())


def plan(
    study: str, cfg: Config, values: Sequence[Sequence[Value]], work_dir: Path, metric: str
) -> list[Run]:
    """Write the config of every cell, or find the existing one. The metric is one of METRICS."""
    evaluators = cfg.get('val_evaluator') or []
    evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
    if metric == 'knn' and 'KNNAccuracy' not in map(type_name, evaluators):
        raise UserError(
            '--evaluate knn reads knn/top1 of the last validation, but this config has no '
            'val_evaluator of type simclr_mm.KNNAccuracy: take a pretraining config'
        )
    runs = []
    names = [axis.name for axis in STUDIES[study].axes]
    for labels, options in STUDIES[study].cells(cfg, *values):
        run = Run(study, dict(zip(names, labels)), work_dir, metric)
        write_config(run, cell_config(cfg, options))
        runs.append(run)
    if not runs:
        raise UserError('--values: the study has no cell that combines these values')
    return runs


def cell_config(cfg: Config, options: Options) -> Config:
    """The config of a cell: the study's options, and the common settings of all runs."""
    cfg = Config(cfg.to_dict(), filename=cfg.filename)
    cfg.merge_from_dict(options)
    # One validation at the end, which gives the value of the row, and one checkpoint.
    common = {
        'train_cfg.val_interval': last_step(cfg),
        'default_hooks.checkpoint.max_keep_ckpts': 1,
    }
    if 'max_epochs' not in cfg.train_cfg:
        # Otherwise MMEngine logs every validation at step 0.
        common['default_hooks.logger.log_metric_by_epoch'] = False
    if cfg.get('randomness', {}).get('seed') is None:
        common['randomness.seed'] = 0
    cfg.merge_from_dict(common)
    return cfg
