"""Features of an embedded folder, of a config's data, or of views.

n images shown, C feature width, V views, d projection width.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmpretrain.datasets import BaseDataset
from mmpretrain.structures import DataSample
from rich.progress import track
from torch.utils.data import DataLoader, Subset

from simclr_mm.apis.encoder import Encoder
from simclr_mm.commands.command_line import ALONE, Ranks, build_dataset, test_data
from simclr_mm.commands.embed.retrieval import FeatureIndex
from simclr_mm.datasets import GalleryAndQuery, SampleIndex, collate
from simclr_mm.datasets.nested import views_in
from simclr_mm.engine import Runner
from simclr_mm.engine.config_errors import building_from
from simclr_mm.errors import UnreadableImage, UserError
from simclr_mm.evaluation import Labelled, extract_features, require_divisible
from simclr_mm.evaluation.features import class_of

from .cache import cached_features, shared_features

_PIXELS = 32  # side of the raw pixels that are compared: 3,072 numbers an image


class LabelledFeatures(NamedTuple):
    """Features with classes."""

    features: np.ndarray  # (n, C) float32
    labels: np.ndarray  # (n,) indices of ``classes``
    classes: list[str]  # class names
    name: str  # of the folder or of the config's file
    total: int  # number of images that the n images are drawn from


def from_embedding(
    directory: str | Path,
    most: int,
    seed: int = 0,
    class_of: Callable[[str], str] = lambda name: Path(name).parent.name,
) -> LabelledFeatures:
    """A sample of rows of an embedded folder. By default an image's class is its folder."""
    index = FeatureIndex(directory)
    if index.record.get('pack'):
        raise UserError(
            f'{directory} holds the features of a pack, {index.folder}, whose keys have no '
            'classes: give a config with this pack as its test data, and a checkpoint'
        )
    rows = _some(len(index.features), most, seed)
    features = np.array(index.features[rows])
    readable = np.isfinite(features).all(axis=1)
    names = [class_of(index.names[row]) or index.folder.name for row in rows]
    if not readable.any():
        raise UserError(f'{directory}: all of the {len(rows)} rows are NaN: see its errors.jsonl')
    if not readable.all():
        print_log(f'{directory}: {(~readable).sum()} of the {len(rows)} rows are NaN, left out')
    classes, labels = np.unique(np.array(names)[readable], return_inverse=True)
    return LabelledFeatures(
        features[readable], labels, classes.tolist(), index.folder.name, len(index.features)
    )


def from_config(encoder: Encoder, most: int, seed: int = 0) -> LabelledFeatures:
    """Embed a sample of the test images of the encoder's config, for kNN the queries.

    Images without labels are one class.
    """
    cfg = encoder.config
    dataset = build_dataset(test_data(cfg).dataset)
    if isinstance(dataset, GalleryAndQuery):
        dataset = dataset.query
    chosen = Subset(dataset, _some(len(dataset), most, seed).tolist())
    loader = DataLoader(chosen, batch_size=64, collate_fn=default_collate)
    has_labels = 'gt_label' in dataset.get_data_info(0)
    features, labels = extract_features(
        encoder.model, loader, encoder.features, 'embedding', class_of if has_labels else _no_class
    )
    classes = dataset.metainfo.get('classes') if has_labels else ['images']
    classes = classes or range(labels.max() + 1)
    name = Path(cfg.filename).stem if cfg.filename else 'the test data'
    return LabelledFeatures(features, labels, [str(each) for each in classes], name, len(dataset))


def _no_class(sample: DataSample) -> int:
    return 0


def gallery_and_queries(
    encoder: Encoder,
    settings: dict[str, Any],
    cache: str | Path | None = None,
    embed: Callable[[torch.Tensor], torch.Tensor] | None = None,
    k: int = 1,
    ranks: Ranks = ALONE,
    per_class: int = 1,
    sweep: bool = False,
) -> tuple[Labelled, Labelled]:
    """Features (g, C) and labels (g,) of the gallery of a GalleryAndQuery, and of the queries.

    ``embed`` makes other features of the preprocessed images, which are not cached. A gallery of
    fewer than ``k`` images, or ``per_class`` of a class, or too few for a ``sweep`` of penalties,
    is refused before anything is embedded. Several ranks share the images; all but the first get
    no rows.
    """
    with building_from(dict(test_dataloader=settings)):
        loader = Runner.build_dataloader(settings, seed=0)
    if not isinstance(loader.dataset, GalleryAndQuery):
        raise UserError(
            f'the test dataset is a {type(loader.dataset).__name__}, without a '
            'gallery to learn from: take a pretraining config, whose '
            'test_dataloader.dataset is a simclr_mm.GalleryAndQuery'
        )
    split = len(loader.dataset.rows)
    if not 1 <= k <= split:
        raise UserError(
            f'kNN: k = {k}, but the gallery has {split} images: set test_evaluator.k from 1 to '
            f'{split}, for example with --cfg-options.'
        )
    classes, counts = np.unique(loader.dataset.labels[loader.dataset.rows], return_counts=True)
    if counts.min() < per_class:
        fewest = int(classes[counts.argmin()])
        names = loader.dataset.metainfo.get('classes') or range(fewest + 1)
        raise UserError(
            f'linear probes: {per_class} images of each class are needed, and the gallery has '
            f'{counts.min()} of {names[fewest]}: give a smaller --per-class, or more images'
        )
    if sweep:
        require_divisible(loader.dataset.labels[loader.dataset.rows])
    if ranks.size > 1:
        ranks.require_same(dict(encoder.fingerprint(), images=len(loader.dataset)))
    if embed:
        found = shared_features(encoder.model, loader, ranks, embed, 'pixels')
    else:
        data = settings['dataset'], cache, 'features'
        found = cached_features(encoder, loader, *data, ranks=ranks)
    features, labels = found
    return (features[:split], labels[:split]), (features[split:], labels[split:])


def small_pixels(images: torch.Tensor) -> torch.Tensor:
    """(n, 3, S, S) -> (n, 3 * 32 * 32), or fewer where S is smaller: features of raw pixels."""
    return F.adaptive_avg_pool2d(images, min(_PIXELS, *images.shape[2:])).flatten(1)


def training_set(cfg: Config) -> BaseDataset:
    """The training images of a config, with its training transforms."""
    with building_from(cfg):
        return build_dataset(cfg.train_dataloader.dataset)


@torch.no_grad()
def embed_views(
    encoder: Encoder, dataset: BaseDataset, most: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """Embed the views that training makes of a sample of images, in eval mode.

    Views that grow have their last size, as at the end of training. A log line names each image
    that cannot be read; it is left out.

    Returns:
        Features (n, V, C), and projections (n, V, d), None for a model without a neck.
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
    if sum(map(len, features)) < 2:
        raise UserError('fewer than two of the images can be read: two are needed to compare')
    return (np.concatenate(features), np.concatenate(projections) if projections else None)


def _batches_of_views(
    model: BaseModel, dataset: BaseDataset, rows: np.ndarray, seed: int
) -> Iterator[torch.Tensor]:
    views = next(views_in(dataset), None)
    epoch = views.milestones[-1] if views and views.milestones else 0
    for start in track(range(0, len(rows), 64), 'embedding views', transient=True):
        indices = [SampleIndex(row, seed, epoch) for row in rows[start : start + 64].tolist()]
        batched = getattr(dataset, 'batched', False)  # in memory, where nothing is unreadable
        batch = dataset.__getitems__(indices) if batched else _readable(dataset, indices)
        if batch:
            yield model.data_preprocessor(collate(batch), training=True)['inputs']


def _readable(dataset: BaseDataset, indices: Sequence[SampleIndex]) -> list[dict]:
    samples = []
    for index in indices:
        try:
            samples.append(dataset[index])
        except UnreadableImage as error:
            print_log(f'left out: {error}', logger='current', level=logging.WARNING)
    return samples


def _some(total: int, most: int, seed: int) -> np.ndarray:
    """Sorted rows, drawn without replacement; all rows if there are at most ``most``."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(total, min(total, most), replace=False))
