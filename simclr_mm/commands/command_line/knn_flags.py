"""``--val`` and ``--val-split``: measure while pretraining, without a config."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from simclr_mm.datasets.image_table import is_list, rows_of
from simclr_mm.datasets.nested import innermost
from simclr_mm.engine.training_data import keep_largest_views
from simclr_mm.errors import UserError
from simclr_mm.files.walk import BAND_EXTENSIONS
from simclr_mm.registry import type_name

from .config import build_dataset, is_classifier, metrics_of
from .data_folder import compare, gallery_and_query, part_of

_SHARE = 0.2  # of a labelled folder without parts are queries
_FEW = 10_000  # images of a gallery, below which 20 neighbours are compared and not 200


def knn_while_training(
    cfg: Config, data: Sequence[str] | None, val: str | None, split: str | None
) -> None:
    """Let a pretraining config compare labelled images at each validation.

    Args:
        cfg: The config, after ``--data``. Its ``val_dataloader`` has a GalleryAndQuery.
        data: The places of ``--data``.
        val: ``DIR/train/<class>/`` and ``DIR/{val,test}/<class>/``; or ``DIR/<class>/`` or a table
            with labels, of which a fifth are queries, or, if it has splits, those of
            ``val`` or ``test``.
        split: A share in (0, 1) of ``data`` that become queries, in whole groups, or the name of
            a split in its tables. They are not trained on; the others are the gallery. If no image
            has a label, their features in views are measured instead, by LabelFreeMetrics.

    Raises:
        UserError: The config has no such validation, or the data have no labels or no such split.
    """
    flag = '--val' if split is None else '--val-split'
    if is_classifier(cfg):
        raise UserError(f'{flag} is for pretraining: a classifier is validated on its val/.')
    if val is not None and split is not None:
        raise UserError('--val and --val-split exclude each other: give one of them.')
    if val is not None:
        gallery, query = _of_place(val)
    elif not data:
        raise UserError('--val-split divides the images of --data: name them.')
    else:
        assert split is not None
        gallery, query = _parts(data, _share_or_name(split))
        _train_on(cfg, gallery)
        if not any(row.label for place in data for row in rows_of(place, BAND_EXTENSIONS)):
            _measure_views(cfg, query)
            return
    compare(cfg, flag, 'val_dataloader', gallery, query)
    # A folder's images are those that the pipeline can load.
    sets = (dict(part, pipeline=cfg.val_dataloader.dataset.pipeline) for part in (gallery, query))
    compared, held = (build_dataset(each) for each in sets)
    images, queries = len(compared), len(held)
    if type_name(query) == 'ImageList':  # a folder's were just found
        _require_files(flag, held)
    kept = [each for each in metrics_of(cfg.val_evaluator) if type_name(each) == 'KNNAccuracy']
    if not kept:
        raise UserError(f'{flag}: val_evaluator has no simclr_mm.KNNAccuracy: add one.')
    cfg.val_evaluator = kept[0]
    k = min(kept[0].get('k', 200), 20 if images < _FEW else 200, images)
    cfg.val_evaluator.k = k
    print_log(f'{flag}: kNN of {queries} images among {images}, k = {k} (val_evaluator.k)')


def _require_files(flag: str, held: BaseDataset) -> None:
    """A validation leaves no image out, so a missing one would end training there."""
    paths = (held.get_data_info(row)['img_path'] for row in range(len(held)))
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise UserError(
            f'{flag}: {len(missing)} of {len(held)} held-out images are not there, the first '
            f'{missing[0]}: mend the table'
        )


def _measure_views(cfg: Config, held_out: dict[str, Any]) -> None:
    """Validate without labels, on images that are not trained on."""
    train = innermost(cfg.train_dataloader.dataset)
    dataset = ConfigDict(held_out, with_label=False, pipeline=copy.deepcopy(train.pipeline))
    keep_largest_views(dataset)
    loader = part_of(cfg, 'val_dataloader', '--val-split')
    loader.dataset, loader.collate_fn = dataset, dict(type='default_collate')
    # The same views in every validation.
    loader.sampler = dict(type='simclr_mm.ResumableSampler', shuffle=False, seed=0)
    cfg.val_evaluator = dict(type='simclr_mm.LabelFreeMetrics')
    cfg.val_cfg = cfg.get('val_cfg') or {}
    held = build_dataset(dataset)
    images = len(held)
    _require_files('--val-split', held)
    if images < 2:
        raise UserError('--val-split holds one image out, and there is none to compare: hold more')
    print_log(
        f'--val-split: no image has a label, so {images} images are measured without: rank, '
        'uniformity and alignment of their features'
    )


def _of_place(place: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gallery and query of ``--val``."""
    if not is_list(place):
        root = Path(place)
        if (root / 'train').is_dir():
            return gallery_and_query('--val', root)
        return _parts([place], _SHARE)
    splits = {row.split for row in rows_of(place)}
    named = [name for name in ('val', 'test') if name in splits]
    return _parts([place], named[0] if named else _SHARE)


def _parts(places: Sequence[str], part: float | str) -> tuple[dict[str, Any], dict[str, Any]]:
    common: dict[str, Any] = dict(type='simclr_mm.ImageList', places=list(places), with_label=True)
    if isinstance(part, float):
        common['val_share'] = part
        return dict(common, split='train'), dict(common, split='val')
    return dict(common, split='train'), dict(common, split=part)


def _share_or_name(text: str) -> float | str:
    try:
        share = float(text)
    except ValueError:
        return text
    if not 0 < share < 1:
        raise UserError(
            f'--val-split {text}: give a share between 0 and 1, or the name of a split.'
        )
    return share


def _train_on(cfg: Config, gallery: dict[str, Any]) -> None:
    """Train on the gallery's part, with and without labels."""
    dataset = innermost(cfg.train_dataloader.dataset)
    if type_name(dataset) not in ('ImageFolder', 'ImageList'):
        raise UserError(
            f'--val-split divides folders and lists, not a {type_name(dataset)}: give --val.'
        )
    dataset.pop('data_root', None)
    dataset.update({**gallery, 'with_label': False})
