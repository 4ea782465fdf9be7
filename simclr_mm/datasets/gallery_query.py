"""The two sets of a nearest-neighbour evaluation as one dataset."""

import logging
from collections.abc import Sequence

import numpy as np
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from torch.utils.data import Dataset

from simclr_mm.class_balance import class_balanced_subset
from simclr_mm.registry import DATASETS
from simclr_mm.transforms import UnreadableImage


@DATASETS.register_module()
class GalleryAndQuery(Dataset):
    """A labelled gallery followed by the queries that are classified by it.

    MMEngine's val loop embeds both in one pass;
    :class:`~simclr_mm.evaluation.KNNAccuracy` tells them apart by the metainfo
    ``gallery`` of each sample.

    Files are read by our LoadImageFromFile, which refuses half an image. An unreadable
    gallery image is replaced by another of its class, with a warning: the gallery is
    training data, whose broken files training survives too. An unreadable query is an
    error.

    Args:
        gallery: Config of a labelled dataset, without a pipeline.
        query: Config of a labelled dataset with the same classes, without a pipeline.
        pipeline: Transforms for both.
        gallery_per_class: Images of each class that are used, drawn once from a fixed
            seed; None: all. ImageNet's 1.28 million take as long to embed as an epoch.

    Raises:
        ValueError: A class has fewer images than gallery_per_class.
        UnreadableImage: From a query, or from every image of a class.
    """

    def __init__(
        self,
        gallery: dict,
        query: dict,
        pipeline: Sequence[dict],
        gallery_per_class: int | None = None,
    ) -> None:
        # mmpretrain's FeatureExtractor finds the loading step by the name that our
        # configs give it, so it is exchanged here.
        pipeline = [
            {**transform, 'type': 'simclr_mm.LoadImageFromFile'}
            if transform['type'] == 'LoadImageFromFile'
            else transform
            for transform in pipeline
        ]
        self.gallery = MMPRETRAIN_DATASETS.build({**gallery, 'pipeline': pipeline})
        self.query = MMPRETRAIN_DATASETS.build({**query, 'pipeline': pipeline})
        self.labels = np.asarray(self.gallery.get_gt_labels())
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
        sample['data_samples'].set_field(in_gallery, 'gallery', field_type='metainfo')
        return sample

    def _gallery_sample(self, row: int) -> dict:
        try:
            return self.gallery[row]
        except UnreadableImage as error:
            reason = error
        others = np.flatnonzero(self.labels == self.labels[row])
        np.random.default_rng(row).shuffle(others)
        for other in others.tolist():
            print_log(
                f'gallery image replaced by another of its class: {reason}',
                logger='current',
                level=logging.WARNING,
            )
            try:
                return self.gallery[other]
            except UnreadableImage as error:
                reason = error
        raise UnreadableImage(
            f'no image of class {self.labels[row]} can be read; the last: {reason}'
        )
