"""The two sets of a nearest-neighbour evaluation as one dataset."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from torch.utils.data import Dataset

from simclr_mm.class_balance import class_balanced_subset
from simclr_mm.errors import UserError, listed
from simclr_mm.registry import DATASETS
from simclr_mm.transforms import UnreadableImage
from simclr_mm.transforms.loading import reads_with_mmcv

from .groups import ALONE
from .nested import transforms_of, with_pipeline
from .unreadable import refuse_drops


@DATASETS.register_module()
class GalleryAndQuery(Dataset):
    """A labelled gallery, followed by the queries that it classifies.

    MMEngine's val loop embeds both in one pass. :class:`~simclr_mm.evaluation.KNNAccuracy` tells
    them apart by the metainfo ``gallery`` of each sample.

    An unreadable gallery image is replaced by another image of its class, with a warning, as
    in training. An unreadable query is an error.

    Args:
        gallery: Config of a labelled dataset, without a pipeline.
        query: Config of a labelled dataset with the same classes, without a pipeline.
        pipeline: Transforms for both. ``simclr_mm.LoadImageFromFile`` refuses truncated
            images; mmcv's loader is used with a warning.
        gallery_per_class: Images of each class, drawn once from a fixed seed. None: all.
            Embedding ImageNet's 1.28 million takes as long as an epoch.

    Raises:
        UserError: Gallery and query have different classes, an image of either has no label, a
            class has fewer images than gallery_per_class, or the pipeline has no PackInputs.
        UnreadableImage: For a query, or if no image of a class can be read.
    """

    def __init__(
        self,
        gallery: dict,
        query: dict,
        pipeline: Sequence[dict],
        gallery_per_class: int | None = None,
    ) -> None:
        self.gallery = MMPRETRAIN_DATASETS.build(with_pipeline(gallery, pipeline))
        self.query = MMPRETRAIN_DATASETS.build(with_pipeline(query, pipeline))
        transforms = transforms_of(self.query)
        if reads_with_mmcv(transforms):
            print_log(
                "GalleryAndQuery.pipeline has mmcv's LoadImageFromFile, which loads truncated "
                "images in part: write dict(type='simclr_mm.LoadImageFromFile').",
                logger='current',
                level=logging.WARNING,
            )
        for dataset in (self.gallery, self.query):
            refuse_drops(dataset)
        _check_same_classes(self.gallery, self.query)
        _warn_of_shared_groups(self.gallery, self.query)
        self.labels = labels_of(self.gallery, 'GalleryAndQuery.gallery')
        if hasattr(self.query, 'get_gt_labels'):
            labels_of(self.query, 'GalleryAndQuery.query')
        self.rows = np.arange(len(self.gallery))
        if gallery_per_class is not None:
            self.rows = class_balanced_subset(self.labels, gallery_per_class, seed=0)
        # KNNAccuracy compares its k with the gallery's size before training begins.
        self.metainfo = {**self.query.metainfo, 'gallery_images': len(self.rows)}

    def __len__(self) -> int:
        return len(self.rows) + len(self.query)

    def __getitem__(self, index: int) -> dict:
        in_gallery = index < len(self.rows)
        if in_gallery:
            sample = self._gallery_sample(int(self.rows[index]))
        else:
            sample = self.query[index - len(self.rows)]
        if 'data_samples' not in sample:
            raise UserError(
                'GalleryAndQuery.pipeline makes no data sample of an image: end it with '
                "dict(type='PackInputs')."
            )
        sample['data_samples'].set_field(in_gallery, 'gallery', field_type='metainfo')
        return sample

    def _gallery_sample(self, row: int) -> dict:
        for stand_in in self._of_its_class(row):
            try:
                return self.gallery[stand_in]
            except UnreadableImage as error:
                reason = error
            print_log(
                f'gallery image replaced by another of its class: {reason}',
                logger='current',
                level=logging.WARNING,
            )
        raise UnreadableImage(
            f'no image of class {self.labels[row]} can be read; the last: {reason}'
        )

    def _of_its_class(self, row: int) -> Iterator[int]:
        """The image itself, then all images of its class in an order seeded by the row."""
        yield row
        others = np.flatnonzero(self.labels == self.labels[row])
        np.random.default_rng(row).shuffle(others)
        yield from others.tolist()


def labels_of(dataset: BaseDataset, key: str) -> np.ndarray:
    """(n,) labels of an MMEngine dataset.

    Raises:
        UserError: An image has no label. The message names ``key`` of the config and the first.
    """
    try:
        if hasattr(dataset, 'get_gt_labels'):  # of mmpretrain
            return np.asarray(dataset.get_gt_labels())
        return np.asarray([dataset.get_data_info(row)['gt_label'] for row in range(len(dataset))])
    except KeyError as error:
        row = next(i for i in range(len(dataset)) if 'gt_label' not in dataset.get_data_info(i))
        name = dataset.get_data_info(row).get('img_path', f'image {row}')
        if hasattr(dataset, 'paths'):  # held in memory
            name = dataset.paths[dataset.data_list[row]['row']]
        raise UserError(
            f'{key} is {type(dataset).__name__} with images that have no label, the first '
            f'{name}: put every image into the folder of its class, set with_label=True, or '
            'choose a split whose images all have a label.'
        ) from error


def _warn_of_shared_groups(gallery: BaseDataset, query: BaseDataset) -> None:
    """A patient in both parts makes the numbers too good."""
    parts = [
        data.groups_of_images()
        for data in (gallery, query)
        if hasattr(data, 'groups_of_images') and len(data) and 'group' in data.get_data_info(0)
    ]
    shared = set(parts[0]) & set(parts[1]) - {ALONE} if len(parts) == 2 else ()
    if shared:
        print_log(
            f'GalleryAndQuery: {len(shared)} groups have images in gallery and query, so the '
            'numbers are too good: divide whole groups, as --val-split 0.1 does.',
            logger='current',
            level=logging.WARNING,
        )


def _check_same_classes(gallery: BaseDataset, query: BaseDataset) -> None:
    """Labels are indices of class names, so both sets need the same names."""
    names, others = (list(each.metainfo.get('classes') or ()) for each in (gallery, query))
    if names and others and names != others:
        in_one = sorted(set(names) ^ set(others))
        raise UserError(
            f'GalleryAndQuery: gallery has {len(names)} classes and query {len(others)}, '
            + (f'{listed(in_one)} in one of them only' if in_one else 'in another order')
            + ': give both the same class folders.'
        )
