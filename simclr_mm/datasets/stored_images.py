"""What datasets have in common whose images lie in a few large files."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from mmpretrain.datasets import BaseDataset

from simclr_mm.errors import MissingPackageError, UserError
from simclr_mm.transforms.loading import reads_with_mmcv


class StoredImages(BaseDataset):
    """Encoded images in large files, any of which can be read at any time.

    A sample enters the pipeline with ``img_bytes``, which ``LoadImageFromFile`` of this
    package decodes; ``img_path`` names shard and image for messages.

    Args:
        data_root: Where the files lie.
        with_label: Whether samples carry ``gt_label``.
        pipeline: Transforms of one sample.
        **kwargs: As mmpretrain's BaseDataset, for example ``indices`` and ``classes``.

    Raises:
        ValueError: Labels are asked for and there are none, or the pipeline would look
            for files.
    """

    def __init__(
        self,
        data_root: str | Path,
        with_label: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        **kwargs,
    ) -> None:
        self.with_label = with_label
        self.labels: np.ndarray | None = None
        super().__init__(ann_file='', data_root=str(data_root), pipeline=list(pipeline), **kwargs)
        if reads_with_mmcv(self.pipeline.transforms):
            raise UserError(
                f"{type(self).__name__}: mmcv's LoadImageFromFile opens files, and here are "
                "none: write dict(type='simclr_mm.LoadImageFromFile') in the pipeline."
            )

    def _join_prefix(self) -> None:
        """Nothing is below data_root that MMEngine would open, which may be a URL."""

    def find(self) -> tuple[np.ndarray | None, Sequence[str] | None, int]:
        """Find the images.

        Returns:
            (N,) labels, or None; class names, or None; N.
        """
        raise NotImplementedError

    def name(self, row: int) -> str:
        """Shard and image, for messages."""
        raise NotImplementedError

    def read(self, row: int) -> bytes:
        """The encoded image.

        Raises:
            UnreadableImage: It cannot be read, and others may.
        """
        raise NotImplementedError

    def load_data_list(self) -> list:
        self.labels, classes, images = self.find()
        if self.with_label and (self.labels is None or (self.labels < 0).any()):
            raise UserError(
                f'{self.data_root} holds images without a label: write with_label=False'
                f' in the {type(self).__name__} of the config, or pack a folder of '
                'class folders.'
            )
        if images == 0:
            raise UserError(f'{self.data_root} holds no image.')
        if classes is not None:
            self._metainfo.setdefault('classes', tuple(classes))
        return [dict(row=row) for row in range(images)]

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        info['img_path'] = self.name(info['row'])
        if self.with_label and self.labels is not None:
            info['gt_label'] = int(self.labels[info['row']])
        return info

    def prepare_data(self, idx: int) -> dict | None:
        info = self.get_data_info(idx)
        info['img_bytes'] = self.read(info['row'])
        return self.pipeline(info)


def optional_package(name: str, extra: str, use: str) -> ModuleType:
    """Import a package that not everybody needs.

    Args:
        name: Of the package.
        extra: The extra of this project that installs it.
        use: What it is needed for.

    Raises:
        ImportError: It is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split('.')[0]:
            raise
        raise MissingPackageError(
            f"{use} needs {name.split('.')[0]}: pip install 'simclr_mm[{extra}]'"
        ) from error
