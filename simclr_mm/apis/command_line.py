"""What the command-line tools share: flags and how they enter a config."""
import argparse
import os
import os.path as osp
from pathlib import Path
from typing import Optional

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

# Keys that MMEngine's runner reads though our configs do not set them.
_RUNNER_KEYS = {
    'activation_checkpointing', 'compile', 'custom_hooks', 'custom_imports',
    'efficient_conv_bn_eval', 'experiment_name', 'find_unused_parameters',
    'log_processor', 'model_wrapper_cfg', 'param_scheduler', 'sync_bn', 'work_dir'
}


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that train.py and test.py have in common with mmpretrain's."""
    parser.add_argument('--work-dir', help='folder of logs and checkpoints')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config as key=value, for example '
        'train_cfg.max_epochs=2 param_scheduler.0.end=1; lists as key="[a,b]"')
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
            has: it would change nothing.
    """
    for key in options or {}:
        first = key.split('.')[0]
        if first not in cfg and first not in _RUNNER_KEYS:
            raise ValueError(
                f'--cfg-options {key}: the config has no key {first!r} and the runner '
                f'reads none. Keys of this config: {", ".join(sorted(cfg.keys()))}.')
    if options:
        cfg.merge_from_dict(options)


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
            has no validation, for want of labels. A classifier takes
            ``folder/train/<class>/`` and ``folder/{val,test}/<class>/``, and as many
            classes as there are.
        folder: The folder.

    Raises:
        FileNotFoundError: The folder or a part of it is missing.
    """
    root = _existing(Path(folder))
    if is_classifier(cfg):
        train = _existing(root / 'train')
        _read_files_from(cfg.train_dataloader, _class_folders(train))
        _evaluate_on(cfg, root, 'val')
        _evaluate_on(cfg, root, 'test')
    else:
        _read_files_from(
            cfg.train_dataloader,
            dict(type='simclr_mm.ImageFolder', data_root=str(root)))
        remove_validation(cfg)


def test_on_folder(cfg: Config, folder: str) -> None:
    """Let ``--data`` replace the test data of a config.

    Args:
        cfg: A config. A classifier is tested on ``folder/{val,test}/<class>/``, or on
            ``folder/<class>/`` where there are none; kNN also takes its gallery from
            ``folder/train/<class>/``.
        folder: The folder.

    Raises:
        FileNotFoundError: The folder or a part of it is missing.
    """
    _evaluate_on(cfg, _existing(Path(folder)), 'test')


def remove_validation(cfg: Config) -> None:
    """Train without validation."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def _evaluate_on(cfg: Config, root: Path, phase: str) -> None:
    loader = cfg[f'{phase}_dataloader']
    held_out = [root / name for name in ('val', 'test') if (root / name).is_dir()]
    if is_classifier(cfg):
        folder = held_out[0] if held_out else root
        _read_files_from(loader, _class_folders(folder))
        classes = sum(path.is_dir() for path in folder.iterdir())
        cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = classes
        evaluator = cfg[f'{phase}_evaluator']
        evaluator.topk = [k for k in evaluator.topk if k <= classes]
        return
    if not held_out:
        raise FileNotFoundError(
            f'--data {root}: kNN takes its queries from {root}/val/<class>/ or '
            f'{root}/test/<class>/, and there is neither.')
    dataset = loader.dataset
    dataset.pop('gallery_per_class', None)
    dataset.gallery = ConfigDict(_class_folders(_existing(root / 'train')))
    dataset.query = ConfigDict(_class_folders(held_out[0]))
    dataset.pipeline = _with_loading(dataset.pipeline, 'LoadImageFromFile')


def _class_folders(folder: Path) -> dict:
    return dict(type='CustomDataset', data_root=str(folder))


def _read_files_from(loader: ConfigDict, dataset: dict) -> None:
    """Give a dataloader another dataset behind the same pipeline."""
    pipeline = _with_loading(loader.dataset.pipeline, 'simclr_mm.LoadImageFromFile')
    loader.dataset = ConfigDict(**dataset, pipeline=pipeline)


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
