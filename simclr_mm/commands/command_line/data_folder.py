"""A folder or shards of the user's in place of a config's data: ``--data``."""

import os
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from simclr_mm.datasets import class_names, is_url, shard_dataset
from simclr_mm.errors import MissingFileError, UserError

from .config import is_classifier, remove_validation

_HELD_OUT = ('val', 'test')


def train_on_folder(cfg: Config, folder: str) -> None:
    """Let ``--data`` replace the training data of a config.

    Args:
        cfg: A config. Pretraining takes every image below the folder, at any depth, and
            has neither validation nor online probe, for want of labels. A classifier
            takes ``folder/train/<class>/`` and ``folder/{val,test}/<class>/``, and as
            many classes as there are.
        folder: The folder; what ``simclr_mm.datasets.shard_dataset`` recognises may
            stand for it or for its parts.

    Raises:
        FileNotFoundError: The folder or a part of it is missing.
        ValueError: The parts have different classes.
    """
    root = Path(folder)
    if not is_classifier(cfg):
        dataset = _unlabelled(folder)
        _read_files_from(cfg.train_dataloader, dataset)
        if is_url(folder) and dataset['type'] == 'simclr_mm.TarShards':
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
            metric for metric in cfg.test_evaluator if not metric.type.endswith('ProbeAccuracy')
        ]


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
    raise MissingFileError(
        f'--data {root}: there is neither {root}/val/<class>/ nor {root}/test/<class>/ '
        'to evaluate on.'
    )


def _class_names(folder: Path) -> list:
    if shard_dataset(str(folder)):
        names = class_names(str(folder))
        if names is None:
            raise UserError(
                f'--data: {folder} does not say the names of its classes. Pack it with '
                'tools/pack.py, or enter it into a config of your own.'
            )
        return names
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _check_same_classes(train: Path, held_out: Path) -> None:
    """Labels are places in the class names, so these have to be the same."""
    differing = sorted(set(_class_names(train)) ^ set(_class_names(held_out)))
    if not differing and _class_names(train) != _class_names(held_out):
        raise UserError(
            f'--data: {train} and {held_out} have the same classes in '
            'another order: pack both with one file of --classes.'
        )
    if differing:
        raise UserError(
            f'--data: {train} and {held_out} have different classes: '
            f'{", ".join(differing[:10])} in one of them only.'
        )


def _class_folders(folder: Path) -> dict:
    return shard_dataset(str(folder)) or dict(type='CustomDataset', data_root=str(folder))


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
        raise MissingFileError(
            f'--data: there is no folder {folder.absolute()}. Pretraining reads any '
            'folder of images; evaluation reads DIR/train/<class>/ and '
            'DIR/val/<class>/.'
        )
    return folder
