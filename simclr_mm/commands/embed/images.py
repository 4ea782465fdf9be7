"""The images of a folder or a pack, in the order of the rows of features."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS
from torch.utils.data import Dataset

from simclr_mm.datasets import is_url, shard_dataset
from simclr_mm.errors import MissingFileError
from simclr_mm.files.walk import walk_images
from simclr_mm.transforms import LoadImageFromFile, UnreadableImage


class Images(Dataset):
    """(row, sample, '') of an image, or (row, None, reason) of an unreadable one.

    Args:
        location: A folder of images, at any depth, or what ``shard_dataset`` recognises:
            a pack, shards, their URL.
        transforms: Of a decoded image.

    Raises:
        MissingFileError: there is no such folder.
        UserError: it holds no image.
    """

    def __init__(self, location: str | Path, transforms: Compose | None = None) -> None:
        self.location = str(location)
        if not is_url(self.location) and not Path(location).is_dir():
            raise MissingFileError(
                f'there is no folder {Path(location).absolute()}: give the folder or the pack '
                'of the images to embed'
            )
        shards = shard_dataset(self.location)
        self.is_pack = shards is not None
        dataset: dict[str, Any] = dict(type='simclr_mm.ImageFolder', data_root=self.location)
        if shards is not None:
            dataset = dict(shards, with_label=False)
        steps = [LoadImageFromFile(), *([transforms] if transforms else [])]
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            self.images = DATASETS.build(dict(dataset, pipeline=steps, test_mode=True))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[int, Any, str]:
        try:
            return row, self.images[row], ''
        except UnreadableImage as error:
            return row, None, str(error)

    def name(self, row: int) -> str:
        """Path relative to the folder, with forward slashes, or the key in the pack."""
        path = self.images.get_data_info(row)['img_path']
        if is_url(self.location):
            return path.removeprefix(self.location.rstrip('/') + '/')
        return Path(os.path.relpath(path, self.location)).as_posix()

    def picture(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB; no transforms may be set."""
        return self.images[row]['img'][..., ::-1]

    def passed_over(self) -> int:
        """How many files of a folder are no images."""
        if self.is_pack:
            return 0
        return sum(map(len, walk_images(self.location).passed_over.values()))
