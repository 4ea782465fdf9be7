"""Base class of datasets with their images in a few large files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmpretrain.datasets import BaseDataset

from simclr_mm.errors import UserError
from simclr_mm.transforms.loading import reads_with_mmcv

from .groups import GroupedImages, groups_of_rows


class StoredImages(GroupedImages, BaseDataset):
    """Encoded images in large files with random access.

    A sample enters the pipeline with ``img_bytes``, which this package's
    ``LoadImageFromFile`` decodes. ``img_path`` names shard and image for messages.

    Args:
        data_root: Place of the files.
        with_label: Whether samples have ``gt_label``.
        groups: A file with the group of each image, one a line in the order of the dataset: text,
            ``.npy``, or ``.csv`` or ``.parquet`` with the column ``group``. None: no groups.
        positives: 'image' or 'group', as in :class:`~.image_list.ImageList`.
        **kwargs: As for mmpretrain's BaseDataset, such as ``pipeline`` and ``indices``.

    Raises:
        UserError: Labels or images are missing, or a step of the pipeline opens files.
    """

    FIXED = ('ann_file',)  # given to the base class

    def __init__(
        self,
        data_root: str | Path,
        with_label: bool = True,
        groups: str | None = None,
        positives: str = 'image',
        **kwargs,
    ) -> None:
        self.with_label = with_label
        self.groups = groups
        self._set_positives(positives)
        self.labels: np.ndarray | None = None
        super().__init__(ann_file='', data_root=str(data_root), **kwargs)
        if reads_with_mmcv(self.pipeline.transforms):
            raise UserError(
                f"{type(self).__name__}: mmcv's LoadImageFromFile needs one file for each image: "
                "write dict(type='simclr_mm.LoadImageFromFile') in the pipeline."
            )

    def _join_prefix(self) -> None:
        """Do nothing: MMEngine would join paths to data_root, which may be a URL."""

    def find(self) -> tuple[np.ndarray | None, Sequence[str] | None, int]:
        """Find the images: (N,) labels or None, class names or None, and N."""
        raise NotImplementedError

    def name(self, row: int) -> str:
        """Shard and image, for messages."""
        raise NotImplementedError

    def read(self, row: int) -> bytes:
        """The encoded image. Raises UnreadableImage if it cannot be read."""
        raise NotImplementedError

    def storage(self) -> list[str]:
        """What tells the images from earlier ones: the local files that hold them, or a hash."""
        folder = Path(self.data_root)
        return sorted(str(path.absolute()) for path in folder.rglob('*') if path.is_file())

    def load_data_list(self) -> list:
        self.labels, classes, images = self.find()
        if self.with_label and (self.labels is None or (self.labels < 0).any()):
            raise UserError(
                f'{self.data_root} holds images without a label: write with_label=False in the '
                f'{type(self).__name__} of the config, or pack a folder of class folders.'
            )
        if images == 0:
            raise UserError(f'{self.data_root} holds no image.')
        if classes is not None:
            self._metainfo.setdefault('classes', tuple(classes))
        if self.groups is None:
            return [dict(row=row) for row in range(images)]
        numbers = groups_of_rows(self.groups, images).tolist()
        return [dict(row=row, group=group) for row, group in enumerate(numbers)]

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        info['img_path'] = self.name(info['row'])
        if self.with_label and self.labels is not None:
            info['gt_label'] = int(self.labels[info['row']])
        return info

    def _entering(self, idx: int) -> dict:
        info = self.get_data_info(idx)
        info['img_bytes'] = self.read(info['row'])
        return info
