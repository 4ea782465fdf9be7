"""The runs of the table: their configs, made from an encoder and from benchmark configs.

Source: SimCLRv2, arXiv:2006.10029, Sec. 2, for methods; each config cites its own numbers.
"""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, ConfigDict
from mmpretrain.registry import DATASETS

from simclr_mm.apis.loading import Checkpoint
from simclr_mm.commands.command_line.data_folder import train_on_folder
from simclr_mm.commands.evaluate.loop_results import classifier_protocol, scored_dataset
from simclr_mm.commands.runs import Run, Slurm
from simclr_mm.commands.sweep.runs import TrainAndScore, cell_config
from simclr_mm.datasets import ArrayDataset
from simclr_mm.datasets.nested import innermost
from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.evaluation import CHECKPOINT, EvaluationRun, Result, Value
from simclr_mm.files.installed import MIM
from simclr_mm.registry import type_name

STUDY = 'few-labels'
METHODS = {
    'scratch': 'supervised from scratch',
    'linear': 'linear classifier on the encoder',
    'selector-0': 'fine-tuned, selector 0',
    'selector-1': 'fine-tuned, selector 1',
    'distilled': 'distilled from selector 1',
}
TEACHER = 'selector-1'
_BENCHMARKS = MIM / 'configs' / 'benchmarks'
# Random weights need a larger rate than pretrained ones, see docs/fine_tuning.md.
_SCRATCH_RATE = 10


class Plan(NamedTuple):
    """What all runs share."""

    encoder: Checkpoint
    source: str  # absolute path of the encoder's file
    finetune: dict[str, Config]  # fine-tuning configs by label, such as '1pct'
    distil: Config | None
    epochs: Mapping[str, int]  # instead of the configs', by label or 'distil'
    work_dir: Path

    def run(self, method: str, label: str, seed: int, teacher: str | None = None) -> Run:
        """Write the config of a run, or find the existing one."""
        labels: dict[str, Value] = dict(method=method, labels=label, seed=seed)
        run = Run(STUDY, labels, self.work_dir, 'linear' if method == 'linear' else 'top1')
        if method == 'linear':
            run.write_config(self._linear(label, seed))
        elif method == 'distilled':
            run.write_config(self._distilled(seed, teacher))
        else:
            run.write_config(self._finetuned(method, label, seed))
        return run

    def _finetuned(self, method: str, label: str, seed: int) -> Config:
        cfg = self._cell(self.finetune[label], seed, self.epochs.get(label))
        _draw(cfg.train_dataloader.dataset, seed)
        model = cfg.model
        width = model.head.in_channels  # C
        if type_name(model.neck) == 'ProjectionNeck':  # of any layer, set below
            width = model.neck.in_channels
            model.neck.until, model.head.in_channels = 0, width
        if method == 'scratch':
            cfg.custom_hooks, model.backbone.init_cfg = [], None
            cfg.optim_wrapper.optimizer.lr *= _SCRATCH_RATE
            return cfg
        model.backbone.init_cfg.checkpoint = self.source
        if method == TEACHER:
            neck = self.encoder.config.model.get('neck') or {}
            if type_name(neck) != 'ProjectionNeck' or neck.get('num_layers', 2) < 2:
                raise UserError(
                    f'{self.source} has no projection head of two layers or more, so no middle: '
                    f'leave {TEACHER} and distilled out of --methods'
                )
            model.neck = ConfigDict(neck, in_channels=width, until=1)
            model.head.in_channels = neck.get('hid_channels') or width
        return cfg

    def _distilled(self, seed: int, teacher: str | None) -> Config:
        assert self.distil is not None and teacher is not None  # as the command has checked
        cfg = self._cell(self.distil, seed, self.epochs.get('distil'))
        cfg.model.teacher = str(Path(teacher).resolve())
        if cfg.model.backbone.get('init_cfg'):
            cfg.model.backbone.init_cfg.checkpoint = self.source
        return cfg

    def _linear(self, label: str, seed: int) -> Config:
        """The encoder's config, with the labelled images as the gallery of its validation."""
        cfg = cell_config(self.encoder.config, {'randomness.seed': seed})
        tuned = cell_config(self.finetune[label], {})
        _draw(tuned.train_dataloader.dataset, seed)
        loader = tuned.val_dataloader
        loader.dataset = ConfigDict(
            type='simclr_mm.GalleryAndQuery',
            gallery=tuned.train_dataloader.dataset,
            query=loader.dataset,
            pipeline=innermost(loader.dataset).pipeline,
        )
        cfg.val_dataloader = loader
        cfg.load_from = self.source  # so another encoder's result is not taken for this one's
        return cfg

    def _cell(self, cfg: Config, seed: int, epochs: int | None) -> Config:
        options: dict[str, object] = {'randomness.seed': seed}
        if epochs is not None:
            options['train_cfg.max_epochs'] = epochs
        cfg = cell_config(cfg, options)
        if type_name(cfg.optim_wrapper) == 'OptimWrapper':
            cfg.optim_wrapper.type = 'simclr_mm.AutocastOptimWrapper'  # bf16 where it is faster
        if _in_memory(cfg):
            for phase in ('train', 'val'):  # each worker would start for a few images
                cfg[f'{phase}_dataloader'].num_workers = 0
        return cfg


class TrainAndTest(TrainAndScore):
    """Trains a classifier and reads its last validation, or fits a linear one."""

    def __init__(self, encoder: str, processes: int, slurm: Slurm | None = None) -> None:
        super().__init__(processes, slurm)
        self.encoder = encoder
        self.command = shlex.join(sys.argv)

    def do(self, run: Run, device: str) -> EvaluationRun:
        done = super().do(run, device)
        if run.metric == 'linear':
            done.command = self.command  # nothing was trained
        return done

    def train(self, run: Run, device: str) -> str:
        return self.encoder if run.metric == 'linear' else super().train(run, device)

    def evaluate(self, run: Run, checkpoint: str, device: str) -> Result:
        if run.metric == 'linear':
            return super().evaluate(run, checkpoint, device)
        cfg = Config.fromfile(run.config)
        protocol, settings = classifier_protocol(cfg)
        scored = scored_dataset(cfg.val_dataloader.dataset)
        value = round(run.validated('accuracy/top1'), 4)
        return Result('classification', *scored, CHECKPOINT, protocol, 'top1', value, settings)


def label_of(cfg: Config, path: str) -> str:
    """The labels of a fine-tuning config as a name writes them, such as '1pct'."""
    protocol = classifier_protocol(cfg)[0]
    if type_name(cfg.train_dataloader.dataset) != 'LabelSubset':
        raise UserError(f'--finetune {path} trains on all labels: name one with a LabelSubset')
    label = protocol.partition('-')[2].removeprefix('tuned-')
    return label.replace('percent', '%').replace('%', 'pct').replace('-labels', 'perclass')


def find_config(encoder: str, task: str, ending: str, flag: str) -> str:
    """The benchmark config that belongs to a pretraining config, by their names.

    Names are ``ALGORITHM_BACKBONE_SCHEDULE_DATA`` and ``BACKBONE_SCHEDULE_DATA``, the second
    schedule with the task in it. Encoders of simclr-v2 are fine-tuned by its own recipe.

    Raises:
        UserError: There is none, or several.
    """
    parts = encoder.split('_')
    if len(parts) != 4:
        raise UserError(
            f'{encoder} is not the name of a pretraining config of this package: name the '
            f'config with {flag}'
        )
    if parts[0] == 'simclr-v2' and task == 'finetune':
        task = 'finetune-proj1'
    pattern = f'{parts[1]}_*-{task}-coslr-*_{parts[3]}{ending}.py'
    found = sorted(_BENCHMARKS.glob(pattern))
    if len(found) != 1:
        names = ', '.join(path.stem for path in found) or 'no config'
        near = _BENCHMARKS.glob(pattern.replace(f'{ending}.py', '-*.py')) if ending else ()
        known = ', '.join(sorted(path.stem.rpartition('-')[2] for path in near))
        advice = f'choose {known.replace("pct", "%")}, or ' if known and not found else ''
        raise UserError(
            f'configs/benchmarks has {names} with the name {pattern}: {advice}name one with {flag}'
        )
    return str(found[0])


def read_from(cfg: Config, folder: str) -> None:
    """Take the images of ``--data``. Data in memory read the folder themselves."""
    if not Path(folder).is_dir():
        raise MissingFileError(f'--data: there is no folder {Path(folder).absolute()}')
    if not (_in_memory(cfg) and 'data_root' in innermost(cfg.train_dataloader.dataset)):
        train_on_folder(cfg, folder)
        return
    for phase in ('train', 'val', 'test'):
        innermost(cfg[f'{phase}_dataloader'].dataset).data_root = folder


def _in_memory(cfg: Config) -> bool:
    return issubclass(DATASETS.get(innermost(cfg.train_dataloader.dataset).type), ArrayDataset)


def _draw(subset: ConfigDict, seed: int) -> None:
    """Let the seed draw the labelled images, too. A list is always the same."""
    if subset.get('list_file') is None:
        subset.seed = seed
