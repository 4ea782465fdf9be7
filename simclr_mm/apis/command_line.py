"""What the command-line tools share: flags and how they enter a config."""
import argparse
import contextvars
import os
import os.path as osp
import sys
import time
import traceback
from pathlib import Path
from typing import Callable, Optional

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from simclr_mm.checkpoints import CheckpointError, trust_checkpoints
from simclr_mm.datasets import class_names, is_url, shard_dataset

_PACKAGE = Path(__file__).resolve().parents[1]
_TOOLS = _PACKAGE.joinpath('.mim', 'tools').resolve()
_HELD_OUT = ('val', 'test')
# Keys that MMEngine's runner reads though our configs do not set them.
_RUNNER_KEYS = {
    'activation_checkpointing', 'compile', 'custom_hooks', 'custom_imports',
    'efficient_conv_bn_eval', 'experiment_name', 'find_unused_parameters',
    'log_processor', 'model_wrapper_cfg', 'param_scheduler', 'sync_bn', 'work_dir'
}


def run(main: Callable[[], None]) -> None:
    """Run a tool: a user's mistake ends it in one line and with exit code 1.

    A mistake is a CheckpointError or a missing file, or a ValueError, OSError or
    ImportError that this package or a tool raised itself. Any other error is a fault of
    the program and keeps its traceback. What ``--trust-checkpoint`` allows ends with
    the tool.
    """
    try:
        contextvars.copy_context().run(main)
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        mistakes = CheckpointError, FileNotFoundError
        if not isinstance(error, mistakes) and not _is_ours(error):
            raise
        message = ' '.join(str(error).split())
        raise SystemExit(f'{Path(sys.argv[0]).name}: error: {message}') from error


def _is_ours(error: Exception) -> bool:
    """Whether a ``raise`` of this package or its tools made an error."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    parents = Path(frame.filename).resolve().parents
    return (_PACKAGE in parents or _TOOLS in parents) and frame.line.startswith('raise')


class _Trust(argparse.Action):
    """A flag that takes effect while the tool runs."""

    def __call__(self, *args) -> None:
        trust_checkpoints()


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-checkpoint``, which holds until the tool ends (see :func:`run`)."""
    parser.add_argument(
        '--trust-checkpoint',
        action=_Trust,
        nargs=0,
        default=argparse.SUPPRESS,
        help='read checkpoints that may run code; only for files whose author you '
        'trust as you trust a program')


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that train.py and test.py have in common with mmpretrain's."""
    parser.add_argument('--work-dir', help='folder of logs and checkpoints')
    add_cfg_options(parser)
    add_trust_flag(parser)
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='do not use pinned memory in the dataloaders')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of this job were started')
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='set by torch.distributed.launch')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config as key=value, for example '
        'train_cfg.max_epochs=2 param_scheduler.0.end=1; lists as key="[a,b]"')


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and enter the flags of :func:`add_common_flags`.

    ``--cfg-options`` are left to :func:`merge_cfg_options`, which comes last.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', Path(args.config).stem)
    if args.no_pin_memory:
        for loader in _dataloaders(cfg):
            loader.pin_memory = False
    return cfg


def merge_cfg_options(cfg: Config, options: Optional[dict]) -> None:
    """Merge ``--cfg-options``.

    Raises:
        ValueError: An option begins with a key that neither the config nor the runner
            has: it would change nothing. Or it leads into a value that has no parts, or
            to a place that a list does not have.
    """
    for key, value in (options or {}).items():
        first = key.split('.')[0]
        if first not in cfg and first not in _RUNNER_KEYS:
            raise ValueError(
                f'--cfg-options {key}: the config has no key {first!r} and the runner '
                f'reads none. Keys of this config: {", ".join(sorted(cfg.keys()))}.')
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError) as error:
            raise ValueError(f'--cfg-options {key}: the config has no such place. '
                             f'{error.args[0]}') from error


def result_path(args: argparse.Namespace) -> Path:
    """A new file for the results of an evaluation, ``evaluation/<time>.json``.

    Args:
        args: With ``config`` and ``work_dir``; by default the latter is named after the
            config.
    """
    work_dir = args.work_dir or osp.join('work_dirs', Path(args.config).stem)
    return Path(work_dir, 'evaluation', time.strftime('%Y%m%d_%H%M%S.json'))


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config names."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def is_classifier(cfg: Config) -> bool:
    """Whether the config trains a classifier on labels (linear evaluation)."""
    return cfg.model.type.split('.')[-1] == 'ImageClassifier'


def train_on_folder(cfg: Config, folder: str) -> None:
    """Let ``--data`` replace the training data of a config.

    Args:
        cfg: A config. Pretraining takes every image below the folder, at any depth, and
            has neither validation nor online probe, for want of labels. A classifier
            takes
            ``folder/train/<class>/`` and ``folder/{val,test}/<class>/``, and as many
            classes as there are.
        folder: The folder; what ``simclr_mm.datasets.shard_dataset`` recognises may
            stand for it or for its parts.

    Raises:
        FileNotFoundError: The folder or a part of it is missing.
        ValueError: The parts have different classes.
    """
    root = Path(folder)
    if not is_classifier(cfg):
        _read_files_from(cfg.train_dataloader, _unlabelled(folder))
        if is_url(folder):
            cfg.train_dataloader.sampler.setdefault('shards_at_once', 16)
        remove_validation(cfg)
        if cfg.model.pop('online_probe', None):
            print_log('--data: no online probe, for want of labels')
        return
    train, held_out = _existing(_existing(root) / 'train'), _held_out(root)
    _check_same_classes(train, held_out)
    _read_files_from(cfg.train_dataloader, _class_folders(train))
    _test_classifier_on(cfg, held_out, 'val')
    _test_classifier_on(cfg, held_out, 'test')


def test_on_folder(cfg: Config, folder: str) -> None:
    """Let ``--data`` replace the test data of a config.

    Args:
        cfg: A config. A classifier is tested on ``folder/{val,test}/<class>/``, or on
            ``folder/<class>/`` where there are none; kNN also takes its gallery from
            ``folder/train/<class>/``.
        folder: The folder.

    Raises:
        FileNotFoundError: The folder or a part of it is missing.
        ValueError: Gallery and queries have different classes.
    """
    root = _existing(Path(folder))
    if is_classifier(cfg):
        parts = [root / name for name in _HELD_OUT if (root / name).is_dir()]
        _test_classifier_on(cfg, parts[0] if parts else root, 'test')
        return
    gallery, queries = _existing(root / 'train'), _held_out(root)
    _check_same_classes(gallery, queries)
    dataset = cfg.test_dataloader.dataset
    dataset.pop('gallery_per_class', None)
    dataset.gallery = ConfigDict(_class_folders(gallery))
    dataset.query = ConfigDict(_class_folders(queries))
    dataset.pipeline = _with_loading(dataset.pipeline, 'LoadImageFromFile')
    if isinstance(cfg.test_evaluator, list):  # the probe knows its own classes only
        cfg.test_evaluator = [
            metric for metric in cfg.test_evaluator
            if not metric.type.endswith('ProbeAccuracy')
        ]


def remove_validation(cfg: Config) -> None:
    """Train without validation."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def _test_classifier_on(cfg: Config, folder: Path, phase: str) -> None:
    _read_files_from(cfg[f'{phase}_dataloader'], _class_folders(folder))
    classes = len(_class_names(folder))
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = classes
    evaluator = cfg[f'{phase}_evaluator']
    evaluator.topk = [k for k in evaluator.topk if k <= classes]


def _held_out(root: Path) -> Path:
    for name in _HELD_OUT:
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(
        f'--data {root}: there is neither {root}/val/<class>/ nor {root}/test/<class>/ '
        'to evaluate on.')


def _class_names(folder: Path) -> list:
    if shard_dataset(str(folder)):
        names = class_names(str(folder))
        if names is None:
            raise ValueError(
                f'--data: {folder} does not say the names of its classes. Pack it with '
                'tools/pack.py, or enter it into a config of your own.')
        return names
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _check_same_classes(train: Path, held_out: Path) -> None:
    """Labels are places in the class names, so these have to be the same."""
    differing = sorted(set(_class_names(train)) ^ set(_class_names(held_out)))
    if not differing and _class_names(train) != _class_names(held_out):
        raise ValueError(f'--data: {train} and {held_out} have the same classes in '
                         'another order: pack both with one file of --classes.')
    if differing:
        raise ValueError(f'--data: {train} and {held_out} have different classes: '
                         f'{", ".join(differing[:10])} in one of them only.')


def _class_folders(folder: Path) -> dict:
    return shard_dataset(str(folder)) or dict(
        type='CustomDataset', data_root=str(folder))


def _unlabelled(folder: str) -> dict:
    """Shards, or all images below a folder."""
    shards = shard_dataset(folder)
    if shards is not None:
        return dict(shards, with_label=False)
    return dict(type='simclr_mm.ImageFolder', data_root=str(_existing(Path(folder))))


def _read_files_from(loader: ConfigDict, dataset: dict) -> None:
    """Give a dataloader another dataset behind the same pipeline.

    What wraps the dataset, such as a LabelSubset, stays.
    """
    around = loader
    while 'dataset' in around.dataset:
        around = around.dataset
    if around.dataset.get('batched'):  # were in memory; files are read by workers
        loader.num_workers = min(4, os.cpu_count() or 1)
        loader.persistent_workers = True
    loading = 'simclr_mm.LoadImageFromFile'
    pipeline = _with_loading(around.dataset.pipeline, loading)
    for step in pipeline:
        if step['type'] == 'LoadImageFromFile':  # opens files, which shards are not
            step['type'] = loading
    around.dataset = ConfigDict(**dataset, pipeline=pipeline)


def _with_loading(pipeline: list, loading: str) -> list:
    """The pipeline with a first step that reads a file, which in-memory data lack."""
    if any(step['type'].endswith('LoadImageFromFile') for step in pipeline):
        return pipeline
    return [ConfigDict(type=loading), *pipeline]


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(
            f'--data: there is no folder {folder.absolute()}. Pretraining reads any '
            'folder of images; evaluation reads DIR/train/<class>/ and '
            'DIR/val/<class>/.')
    return folder


def _dataloaders(cfg: Config) -> list:
    names = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [cfg[name] for name in names if cfg.get(name) is not None]
