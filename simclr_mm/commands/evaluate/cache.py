"""A cache on disk of a test dataset's features."""

import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmpretrain.datasets import BaseDataset
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from simclr_mm.apis.encoder import Encoder, plain_data
from simclr_mm.commands.command_line import ALONE, Ranks
from simclr_mm.datasets import ArrayDataset, GalleryAndQuery
from simclr_mm.datasets.nested import members
from simclr_mm.datasets.stored_images import StoredImages
from simclr_mm.evaluation import Labelled, extract_features
from simclr_mm.evaluation.features import NOTHING, Target, class_of
from simclr_mm.files.atomic import atomic_file, locked
from simclr_mm.files.hashes import bytes_hash, listing_hash
from simclr_mm.version import __version__


def cached_features(
    encoder: Encoder,
    loader: DataLoader,
    settings: Mapping[str, Any],
    cache: str | Path | None,
    description: str,
    target: Callable[[DataSample], Target] = class_of,
    ranks: Ranks = ALONE,
) -> Labelled:
    """Features of a dataloader's images, from the cache if they are in it.

    A file serves only the same weights, architecture, transform, dataset, target and
    version of this package. It holds this key in full, and is complete or absent. Files
    are never removed; delete the folder at any time.

    Args:
        settings: Config of the loader's dataset.
        cache: Folder of the files. None: compute without a cache.
        target: As for ``extract_features``. The key identifies a function by its name, any
            other object by its ``repr``.
        ranks: They share the images, and the first gets all features.

    Returns:
        As from ``extract_features``.
    """

    def compute() -> Labelled:
        how = encoder.features, description, target
        return shared_features(encoder.model, loader, ranks, *how)

    if cache is None:
        return compute()
    if ranks.rank > 0:
        is_kept = ranks.share(False)
        return NOTHING if is_kept else compute()
    key = json.dumps(feature_key(encoder, loader.dataset, settings, target), sort_keys=True)
    path = Path(cache, f'{bytes_hash([key.encode()])[:32]}.npz')
    damaged = path.is_file()
    kept = _read(path, key)  # also from a folder that is read-only
    if kept is not None:
        ranks.share(True)
        return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(Path(f'{path}.lock')):
        kept = None if damaged else _read(path, key)  # computed while this process waited
        ranks.share(kept is not None)
        if kept is not None:
            return kept
        features, labels = compute()
        try:
            with atomic_file(path) as file:
                np.savez(file, features=features, labels=labels, key=key)
        except OSError as error:  # such as a full disk
            print_log(f'{path} cannot be written, so the features are not kept: {error}', 'current')
    return features, labels


def shared_features(
    model: BaseModel,
    loader: DataLoader,
    ranks: Ranks,
    embed: Callable[[Tensor], Tensor] | None,
    description: str,
    target: Callable[[DataSample], Target] = class_of,
) -> Labelled:
    """``extract_features`` by several ranks: each embeds some batches, and the first gets all."""
    if ranks.size > 1:
        size = loader.batch_size or 1
        rows = ranks.mine(range(len(cast(Sized, loader.dataset))), size)
        loader = DataLoader(
            Subset(loader.dataset, rows),
            size,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
        )
    return extract_features(model, loader, embed, description, target, ranks.in_order)


def feature_key(
    encoder: Encoder,
    dataset: BaseDataset | GalleryAndQuery,
    settings: Mapping[str, Any],
    target: Callable[[DataSample], Target] = class_of,
) -> dict[str, Any]:
    """Everything that features and labels depend on, as hashes and plain data."""
    return dict(
        encoder.fingerprint(),
        model=plain_data(encoder.config.model),
        dataset=plain_data(settings),
        images=images_hash(dataset),
        target=getattr(target, '__qualname__', repr(target)),
        simclr_mm=__version__,
    )


def images_hash(dataset: BaseDataset | GalleryAndQuery) -> str:
    """SHA-256 of the images in memory, or of the files' names, sizes and times of change."""
    if isinstance(dataset, GalleryAndQuery):
        parts = images_hash(dataset.gallery), images_hash(dataset.query)
        return bytes_hash([*map(str.encode, parts), dataset.rows.tobytes()])
    if isinstance(dataset, ArrayDataset):
        images = np.ascontiguousarray(dataset.images)
        classes = np.asarray(dataset.get_gt_labels(), dtype=np.int64)
        return bytes_hash([str(images.shape).encode(), images.data, classes.tobytes()])
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    paths = [os.path.abspath(info['img_path']) for info in infos if 'img_path' in info]
    arrays = [np.ascontiguousarray(info['img']) for info in infos if 'img_path' not in info]
    content = [part for img in arrays for part in (str(img.shape).encode(), img.data)]
    in_memory = [bytes_hash(content)] if arrays else []
    files = listing_hash('', [*paths, *_storage(dataset), *in_memory])
    labels = [[info['gt_label'], info.get('gt_label_difficult')] for info in infos]
    return bytes_hash([files.encode(), json.dumps(labels, default=int).encode()])


def _storage(dataset: Any) -> list[str]:
    """What tells a pack from an earlier one, also in a ConcatDataset: its images are no files."""
    if isinstance(dataset, StoredImages):
        return dataset.storage()
    return [name for each in members(dataset) for name in _storage(each)]


def _read(path: Path, key: str) -> Labelled | None:
    if not path.is_file():
        return None
    try:
        with np.load(path) as kept:
            if str(kept['key']) == key:
                return kept['features'], kept['labels']
        reason = 'it belongs to another key'
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = f'it cannot be read ({error})'
    print_log(f'{path} is computed again: {reason}', 'current')
    return None
