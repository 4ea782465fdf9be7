"""``--data``: replace a config's data by the user's folders, lists or shards."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from simclr_mm.datasets import class_names, shard_dataset
from simclr_mm.datasets.image_folder import class_names_of
from simclr_mm.datasets.image_table import is_list
from simclr_mm.datasets.nested import innermost
from simclr_mm.engine.training_data import (
    replace_images,
    rgb_in_memory,
    train_unlabelled,
    with_loading,
)
from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.files.storage import is_url
from simclr_mm.registry import type_name

from .config import is_classifier, metrics_of

_HELD_OUT = ('val', 'test')
_SHARDS = ('.tar', '.parquet', '.arrow', '.mdb')  # files whose folder --data takes


def train_on_folder(cfg: Config, *places: str, keep_validation: bool = False) -> None:
    """Replace the training data of a config by ``--data``.

    Pretraining uses every image of the places. It has no labels, so validation and online
    probe are removed. A classifier uses ``folder/train/<class>/`` and
    ``folder/{val,test}/<class>/`` of one folder, and gets their number of classes.

    Args:
        *places: Folders, with images at any depth, lists and tables of paths, or shards that
            ``simclr_mm.datasets.shard_dataset`` recognises.
        keep_validation: For :func:`~.knn_flags.knn_while_training`, which replaces its images.
    """
    if not is_classifier(cfg):
        dataset = _unlabelled(places)
        loader = part_of(cfg, 'train_dataloader')
        _read_as_bgr(cfg, loader.dataset)
        train_unlabelled(cfg, dataset, keep_validation)
        if is_url(places[0]) and dataset['type'] == 'simclr_mm.TarShards':
            loader.sampler.setdefault('shards_at_once', 16)
        return
    if len(places) > 1:
        raise UserError(
            f'--data {" ".join(places)}: a classifier takes one folder, with '
            'train/<class>/ and val/<class>/ in it.'
        )
    root = _folder(places[0])
    train, held_out = _folder(root / 'train'), _held_out(root)
    check_same_classes('--data', train, held_out)
    replace_images(part_of(cfg, 'train_dataloader'), class_folders(train))
    _test_classifier_on(cfg, held_out, 'val')
    _test_classifier_on(cfg, held_out, 'test')


def test_on_folder(cfg: Config, folder: str, trained: Sequence[str] | None = None) -> None:
    """Replace the test data of a config by ``--data``.

    A classifier is tested on ``folder/{val,test}/<class>/``, or on ``folder/<class>/``
    if there are none. kNN also takes its gallery from ``folder/train/<class>/``.

    Raises:
        UserError: A part is missing, or some of its classes, but not all, are those on which the
            classifier was trained.
    """
    root = _folder(folder)
    if is_classifier(cfg):
        parts = [root / name for name in _HELD_OUT if (root / name).is_dir()]
        tested = parts[0] if parts else root
        names = _class_names(tested)
        if trained and set(trained).isdisjoint(names):  # such as ImageNet's, and its folders
            print_log(
                f'--data {tested}: its folders have other names than the classes of the '
                f'checkpoint, so they count in their order: {names[0]} is {trained[0]}, '
                f'{names[-1]} is {trained[-1]}',
                logger='current',
                level=logging.WARNING,
            )
        elif trained:
            _require_classes('--data', trained, 'the checkpoint', tested)
        _test_classifier_on(cfg, tested, 'test')
        return
    compare(cfg, '--data', 'test_dataloader', *gallery_and_query('--data', root))
    if isinstance(cfg.test_evaluator, list):  # the probe has its own classes
        cfg.test_evaluator = [
            metric for metric in cfg.test_evaluator if type_name(metric) != 'ProbeAccuracy'
        ]


def compare(cfg: Config, flag: str, key: str, gallery: dict, query: dict) -> None:
    """Replace gallery and query of the GalleryAndQuery in a dataloader of the config.

    Raises:
        UserError: There is none.
    """
    dataset = part_of(cfg, key, flag).dataset
    if 'query' not in dataset:
        raise UserError(
            f'{flag}: {key}.dataset is {type_name(dataset)}. kNN needs a '
            'simclr_mm.GalleryAndQuery there, as in the configs of simclr_mm.'
        )
    _read_as_bgr(cfg, dataset, flag)
    dataset.pop('gallery_per_class', None)
    dataset.gallery, dataset.query = ConfigDict(gallery), ConfigDict(query)
    dataset.pipeline = with_loading(dataset.pipeline)


def gallery_and_query(flag: str, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``root/train/<class>/`` and ``root/{val,test}/<class>/``.

    Raises:
        UserError: A part is missing, or they have different classes.
    """
    gallery, queries = _folder(root / 'train', flag), _held_out(root, flag)
    check_same_classes(flag, gallery, queries)
    return class_folders(gallery), class_folders(queries)


def part_of(cfg: Config, key: str, flag: str = '--data') -> ConfigDict:
    """A part of a config whose images a flag replaces."""
    if not cfg.get(key):
        raise UserError(f'{flag}: the config has no {key} whose images it could replace.')
    return cfg[key]


def _test_classifier_on(cfg: Config, folder: Path, phase: str) -> None:
    _read_as_bgr(cfg, part_of(cfg, f'{phase}_dataloader').dataset)
    replace_images(part_of(cfg, f'{phase}_dataloader'), class_folders(folder))
    classes = len(_class_names(folder))
    cfg.model.head.num_classes = classes
    preprocessor = _preprocessor(cfg)
    if preprocessor:
        preprocessor.num_classes = classes
    for metric in metrics_of(cfg[f'{phase}_evaluator']):
        if 'topk' in metric:
            topk = [metric.topk] if isinstance(metric.topk, int) else metric.topk
            metric.topk = [k for k in topk if k <= classes] or [1]


def _preprocessor(cfg: Config) -> ConfigDict | None:
    return cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')


def _read_as_bgr(cfg: Config, replaced: dict[str, Any], flag: str = '--data') -> None:
    """Let the preprocessor turn BGR files into RGB, where images replace mmpretrain's CIFAR.

    Raises:
        UserError: Training keeps such images (``--val``), and the preprocessor is for both.
    """
    settings = _preprocessor(cfg)
    if settings and rgb_in_memory(replaced) and not settings.get('to_rgb'):
        if flag == '--val' and rgb_in_memory(cfg.train_dataloader.dataset):
            raise UserError(
                '--val: files are read as BGR, and the training images are RGB in memory: give '
                'the training images as files too, with --data'
            )
        settings.to_rgb = True
        print_log(
            f'{flag}: files are read as BGR, and {type_name(innermost(replaced))} is RGB, so '
            'data_preprocessor.to_rgb=True',
            logger='current',
        )


def _held_out(root: Path, flag: str = '--data') -> Path:
    for name in _HELD_OUT:
        if (root / name).is_dir():
            return root / name
    raise MissingFileError(
        f'{flag} {root}: there is neither {root}/val/<class>/ nor {root}/test/<class>/.'
    )


def _class_names(folder: Path) -> list[str]:
    if not shard_dataset(str(folder)):
        return class_names_of(str(folder))
    names = class_names(str(folder))
    if names is None:
        raise UserError(
            f'--data: {folder} has no class names. Pack it with simclr-mm pack, or use a config.'
        )
    return names


def check_same_classes(flag: str, train: Path, held_out: Path) -> None:
    """Labels are indices of class names, so both sets need the same names."""
    _require_classes(flag, _class_names(train), str(train), held_out)


def _require_classes(flag: str, names: Sequence[str], source: str, folder: Path) -> None:
    others = _class_names(folder)
    differing = sorted(set(names) ^ set(others))
    if differing:
        raise UserError(
            f'{flag}: {source} and {folder} have different classes: '
            f'{", ".join(differing[:10])} in one of them only.'
        )
    if list(names) != others:
        raise UserError(
            f'{flag}: {source} and {folder} have the same classes in '
            'another order: pack both with one file of --classes.'
        )


def class_folders(folder: str | Path) -> dict[str, Any]:
    """The dataset of a folder of class folders, or of a pack with labels."""
    folder = _folder(folder)
    return shard_dataset(str(folder)) or dict(
        type='simclr_mm.ImageFolder', data_root=str(folder), with_label=True
    )


def _unlabelled(places: tuple[str, ...]) -> dict[str, Any]:
    """Shards, or all images of some folders and lists."""
    for place in places:
        if not is_url(place) and not (is_list(place) and os.path.isfile(place)):
            _folder(place)
    shards = [place for place in places if not is_list(place) and shard_dataset(place)]
    if shards and len(places) > 1:
        raise UserError(
            f'--data {" ".join(places)}: {shards[0]} holds shards, which cannot be combined '
            'with other data. Pack all images into one folder with simclr-mm pack.'
        )
    if shards:
        return dict(shard_dataset(shards[0]) or {}, with_label=False)
    if len(places) == 1 and not is_list(places[0]):
        return dict(type='simclr_mm.ImageFolder', data_root=places[0])
    return dict(type='simclr_mm.ImageList', places=list(places))


def _folder(place: str | Path, flag: str = '--data') -> Path:
    """An existing folder, or an error with advice for the kind of place."""
    path, text = Path(place), str(place)
    if text and path.is_dir():
        return path
    problem = f'{flag}: there is no folder {path.absolute()}'
    advice = (
        'Pretraining reads any folder of images; evaluation reads DIR/train/<class>/ and '
        'DIR/val/<class>/'
    )
    if not text:
        problem, advice = f'{flag} is empty', 'Name a folder'
    elif is_url(text):
        problem, advice = f'{flag} {text} is a URL', 'Only pretraining reads shards by URL'
    elif path.is_file():
        problem = f'{flag} {text} is a file, which is not supported here'
        advice = 'Give a folder, unpack an archive first'
        if path.suffix in _SHARDS:
            advice = 'Give the folder in which it lies'
    elif any(sign in text for sign in '*?['):
        problem = f'{flag} {text} is a pattern, which is not supported'
        advice = 'Give folders, or write the paths into a .txt file, one a line, and give that'
    raise MissingFileError(f'{problem}. {advice}.')
