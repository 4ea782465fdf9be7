"""The images of a folder or a pack, in the order of the rows of features."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmpretrain.datasets import BaseDataset
from torch.utils.data import Dataset

from simclr_mm.commands import command_line
from simclr_mm.datasets import shard_dataset
from simclr_mm.files.storage import is_url
from simclr_mm.transforms import LoadImageFromFile, UnreadableImage


class ImageOrReason(Dataset):
    """(row, sample, '') of a dataset's image, or (row, None, reason) of an unreadable one."""

    def __init__(self, images: BaseDataset) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[int, Any, str]:
        try:
            return row, self.images[row], ''
        except UnreadableImage as error:
            return row, None, str(error)


class Images(ImageOrReason):
    """The images of a place, or why they are unreadable.

    Args:
        location: A folder of images, at any depth, or a place that ``shard_dataset``
            recognises: a pack, shards, or their URL. No image is a UserError.
        transforms: Transforms of a decoded image.
        loading: What reads a file; by default as 8-bit BGR.
    """

    def __init__(
        self,
        location: str | Path,
        transforms: Compose | None = None,
        loading: LoadImageFromFile | None = None,
    ) -> None:
        self.location = str(location)
        shards = shard_dataset(self.location)
        self.is_pack = shards is not None
        place = shards or dict(type='simclr_mm.ImageFolder', data_root=self.location)
        steps = [loading or LoadImageFromFile(), *([transforms] if transforms else [])]
        settings = dict(place, with_label=False, pipeline=steps, test_mode=True)
        super().__init__(command_line.build_dataset(settings))

    def name(self, row: int) -> str:
        """Path relative to the folder, with forward slashes, or the key in the pack."""
        path = self.images.get_data_info(row)['img_path']
        if is_url(self.location):
            return path.removeprefix(self.location.rstrip('/') + '/')
        return Path(os.path.relpath(path, self.location)).as_posix()

    def picture(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB, of images that are read as 8-bit BGR and have no transforms."""
        return self.images[row]['img'][..., ::-1]
