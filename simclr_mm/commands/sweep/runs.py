"""The runs of a study, one for each cell."""

import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from simclr_mm.apis import load_encoder
from simclr_mm.commands.command_line.config import metrics_of
from simclr_mm.commands.evaluate.feature_table import PENALTY
from simclr_mm.commands.evaluate.image_features import gallery_and_queries
from simclr_mm.commands.evaluate.loop_results import knn_settings, scored_dataset
from simclr_mm.commands.runs import Run, TrainAndEvaluate, last_step
from simclr_mm.errors import UserError
from simclr_mm.evaluation import PRETRAINED, Result, Value, linear_probe
from simclr_mm.files.atomic import write_text
from simclr_mm.registry import type_name

from .cells import Options
from .studies import STUDIES

METRICS = ('knn', 'linear')


class TrainAndScore(TrainAndEvaluate):
    """Scores a run by kNN of its last validation, or by a linear probe of its last checkpoint."""

    def evaluate(self, run: Run, checkpoint: str, device: str) -> Result:
        cfg = Config.fromfile(run.config)
        dataset = cfg.val_dataloader.dataset
        settings: dict[str, Value] = dict(penalty=PENALTY)
        if run.metric == 'knn':
            value = run.validated('knn/top1')
            settings = knn_settings(cfg.val_evaluator, dataset)
        else:
            file = run.folder / 'linear_value.json'
            program = f'import sys; from {__name__} import write_linear as do; do(*sys.argv[1:])'
            self.call(run, ['-c', program, str(run.config), checkpoint, str(file)], device)
            value = json.loads(file.read_text())
        scored = scored_dataset(dataset)
        return Result(
            'classification', *scored, PRETRAINED, run.metric, 'top1', round(value, 4), settings
        )


def write_linear(config: str, checkpoint: str, file: str) -> None:
    """Write the top-1 in percent, on the queries, of a probe fitted on the val set's gallery.

    Source: SimCLR, arXiv:2002.05709, Sec. 2.3, linear evaluation.
    """
    cfg = Config.fromfile(config)
    encoder = load_encoder(checkpoint, cfg, get_device())
    gallery, queries = gallery_and_queries(encoder, cfg.val_dataloader)
    write_text(file, json.dumps(100 * linear_probe(gallery, queries, 1 / PENALTY)))


def plan(
    study: str, cfg: Config, values: Sequence[Sequence[Value]], work_dir: Path, metric: str
) -> list[Run]:
    """Write the config of every cell, or find the existing one. The metric is one of METRICS."""
    evaluators = metrics_of(cfg.get('val_evaluator'))
    if metric == 'knn' and 'KNNAccuracy' not in map(type_name, evaluators):
        raise UserError(
            '--evaluate knn reads knn/top1 of the last validation, but this config has no '
            'val_evaluator of type simclr_mm.KNNAccuracy: take a pretraining config'
        )
    runs = []
    names = [axis.name for axis in STUDIES[study].axes]
    for labels, options in STUDIES[study].cells(cfg, *values):
        run = Run(study, dict(zip(names, labels)), work_dir, metric)
        run.write_config(cell_config(cfg, options))
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
