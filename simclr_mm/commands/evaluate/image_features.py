"""Features of images: of an embedded folder, of a config's data, of views.

n images shown, C feature width, V views, d projection width.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS
from rich.progress import track
from torch.utils.data import DataLoader, Dataset, Subset

from simclr_mm.apis.encoder import Encoder
from simclr_mm.commands.embed.retrieval import FeatureIndex
from simclr_mm.datasets import GalleryAndQuery, SampleIndex, collate
from simclr_mm.engine import Runner
from simclr_mm.engine.config_errors import building_from
from simclr_mm.errors import UserError
from simclr_mm.evaluation import Labelled, extract_features

from .cache import cached_features


class LabelledFeatures(NamedTuple):
    """Features with classes.

    Args:
        features: (n, C) float32.
        labels: (n,) places in ``classes``.
        classes: Their names.
        name: Of the folder or of the config's file.
        total: Images that were there to draw from.
    """

    features: np.ndarray
    labels: np.ndarray
    classes: list[str]
    name: str
    total: int


def from_embedding(directory: str | Path, most: int, seed: int = 0) -> LabelledFeatures:
    """Some rows of an embedded folder; the folder an image lies in is its class.

    Raises:
        UserError: the images are those of a pack, not of folders; or no row is finite.
    """
    index = FeatureIndex(directory)
    if index.record.get('pack'):
        raise UserError(
            f'{directory} holds the features of a pack, {index.folder}, and its keys do not name '
            'the classes: give a config with this pack as its test data, and a checkpoint'
        )
    rows = _some(len(index.features), most, seed)
    features = np.array(index.features[rows])
    readable = np.isfinite(features).all(axis=1)
    names = [Path(index.names[row]).parent.name or index.folder.name for row in rows]
    if not readable.any():
        raise UserError(f'{directory}: all of the {len(rows)} rows are NaN: see its errors.jsonl')
    if not readable.all():
        print_log(f'{directory}: {(~readable).sum()} of the {len(rows)} rows are NaN, left out')
    classes, labels = np.unique(np.array(names)[readable], return_inverse=True)
    return LabelledFeatures(
        features[readable], labels, classes.tolist(), index.folder.name, len(index.features)
    )


def from_config(encoder: Encoder, most: int, seed: int = 0) -> LabelledFeatures:
    """Embed some test images of the encoder's config, of a GalleryAndQuery the queries."""
    cfg = encoder.config
    scope = DefaultScope.overwrite_default_scope('mmpretrain')
    with scope, building_from(cfg, 'test_dataloader'):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    if isinstance(dataset, GalleryAndQuery):
        dataset = dataset.query
    chosen = Subset(dataset, _some(len(dataset), most, seed).tolist())
    loader = DataLoader(chosen, batch_size=64, collate_fn=default_collate)
    features, labels = extract_features(encoder.model, loader, encoder.features, 'embedding')
    classes = dataset.metainfo.get('classes') or range(labels.max() + 1)
    name = Path(cfg.filename).stem if cfg.filename else 'the test data'
    return LabelledFeatures(features, labels, [str(each) for each in classes], name, len(dataset))


def gallery_and_queries(
    encoder: Encoder, settings: dict[str, Any], cache: str | Path | None = None
) -> tuple[Labelled, Labelled]:
    """Embed all images of a GalleryAndQuery.

    Returns:
        Features (g, C) and labels (g,) of the gallery, (q, C) and (q,) of the queries.

    Raises:
        UserError: The dataset is no GalleryAndQuery.
    """
    with building_from(dict(test_dataloader=settings)):
        loader = Runner.build_dataloader(settings, seed=0)
    split = gallery_size(loader.dataset)
    features, labels = cached_features(encoder, loader, settings['dataset'], cache, 'features')
    return (features[:split], labels[:split]), (features[split:], labels[split:])


def gallery_size(dataset: Dataset) -> int:
    """Images of the gallery, which come first.

    Raises:
        UserError: The dataset is no GalleryAndQuery.
    """
    if not isinstance(dataset, GalleryAndQuery):
        raise UserError(
            f'the test dataset is a {type(dataset).__name__}, without a '
            'gallery to learn from: take a pretraining config, whose '
            'test_dataloader.dataset is a simclr_mm.GalleryAndQuery'
        )
    return len(dataset.rows)


def training_set(cfg: Config) -> BaseDataset:
    """The training images of a config, behind its training transforms."""
    scope = DefaultScope.overwrite_default_scope('mmpretrain')
    with scope, building_from(cfg, 'train_dataloader'):
        return DATASETS.build(cfg.train_dataloader.dataset)


@torch.no_grad()
def embed_views(
    encoder: Encoder, dataset: BaseDataset, most: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """Embed the views that training makes of some images, in eval mode.

    Returns:
        Features (n, V, C), and projections (n, V, d), None for a model without a neck.

    Raises:
        UserError: the dataset gives no views.
    """
    features, projections = [], []
    model = encoder.model.eval()
    for inputs in _batches_of_views(model, dataset, _some(len(dataset), most, seed), seed):
        if inputs.ndim != 5:
            raise UserError(
                'train_dataloader.dataset.pipeline has no '
                'simclr_mm.TwoViews: take a pretraining config'
            )
        embedded = encoder.features(inputs.flatten(0, 1))  # (n, V, ...) -> (nV, C)
        shape = (*inputs.shape[:2], -1)
        features.append(embedded.view(shape).cpu().numpy())  # (n, V, C)
        if getattr(model, 'neck', None) is not None:
            projections.append(model.neck(embedded).view(shape).cpu().numpy())
    return (np.concatenate(features), np.concatenate(projections) if projections else None)


def _batches_of_views(
    model: BaseModel, dataset: BaseDataset, rows: np.ndarray, seed: int
) -> Iterator[torch.Tensor]:
    sampler = [SampleIndex(row, seed) for row in rows.tolist()]
    loader = DataLoader(dataset, 64, sampler=sampler, collate_fn=collate)
    for batch in track(loader, 'embedding views', transient=True):
        yield model.data_preprocessor(batch, training=True)['inputs']


def _some(total: int, most: int, seed: int) -> np.ndarray:
    """Sorted rows, drawn without replacement; all where there are not more."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(total, min(total, most), replace=False))
