"""The two sets of a nearest-neighbour evaluation as one dataset."""
from typing import Callable, Optional, Sequence, Union

import numpy as np
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from torch.utils.data import Dataset

from simclr_mm.registry import DATASETS


@DATASETS.register_module()
class GalleryAndQuery(Dataset):
    """A labelled gallery followed by the queries that are classified by it.

    MMEngine's val loop embeds both in one pass;
    :class:`~simclr_mm.evaluation.KNNAccuracy` tells them apart by the metainfo
    ``gallery`` of each sample.

    Args:
        gallery: Config of a labelled dataset, without a pipeline.
        query: Config of a labelled dataset with the same classes, without a pipeline.
        pipeline: Transforms for both.
        gallery_per_class: Images of each class that are used, drawn once from a fixed
            seed; None: all. ImageNet's 1.28 million take as long to embed as an epoch.

    Raises:
        ValueError: A class has fewer images than gallery_per_class.
    """

    def __init__(self,
                 gallery: dict,
                 query: dict,
                 pipeline: Sequence[Union[dict, Callable]],
                 gallery_per_class: Optional[int] = None) -> None:
        pipeline = list(pipeline)
        self.gallery = MMPRETRAIN_DATASETS.build({**gallery, 'pipeline': pipeline})
        self.query = MMPRETRAIN_DATASETS.build({**query, 'pipeline': pipeline})
        self.metainfo = self.query.metainfo
        self.rows = np.arange(len(self.gallery))
        if gallery_per_class is not None:
            self.rows = class_balanced_subset(
                np.asarray(self.gallery.get_gt_labels()), gallery_per_class, seed=0)

    def __len__(self) -> int:
        return len(self.rows) + len(self.query)

    def __getitem__(self, index: int) -> dict:
        in_gallery = index < len(self.rows)
        if in_gallery:
            sample = self.gallery[int(self.rows[index])]
        else:
            sample = self.query[index - len(self.rows)]
        sample['data_samples'].set_field(in_gallery, 'gallery', field_type='metainfo')
        return sample


def class_balanced_subset(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Draw the same number of examples of every class, without replacement.

    Args:
        labels: (n,) class of each example.
        per_class: Examples of each class, >= 1.
        seed: Seed of the draw.

    Returns:
        (classes * per_class,) sorted rows.

    Raises:
        ValueError: A class has fewer examples.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < per_class:
            raise ValueError(f'class {label} has {len(members)} images, {per_class} of '
                             'each class were asked for: ask for fewer.')
        rows.append(rng.choice(members, per_class, replace=False))
    return np.sort(np.concatenate(rows))
