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
from simclr_mm.files.walk import images_below
from simclr_mm.transforms import LoadImageFromFile, UnreadableImage


class Images(Dataset):
    """(row, sample, '') of an image, or (row, None, reason) of an unreadable one.

    Args:
        location: A folder of images, at any depth, or a place that ``shard_dataset``
            recognises: a pack, shards, or their URL. No image is a UserError.
        transforms: Transforms of a decoded image.
    """

    def __init__(self, location: str | Path, transforms: Compose | None = None) -> None:
        self.location = str(location)
        self.passed_over = 0  # files of a folder that are no images
        steps = [LoadImageFromFile(), *([transforms] if transforms else [])]
        shards = shard_dataset(self.location)
        self.is_pack = shards is not None
        if shards is None:
            walk = images_below(self.location)
            self.passed_over = sum(map(len, walk.passed_over.values()))
            self.paths, self.read = walk.paths, Compose(steps)
            return
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            self.pack = DATASETS.build(
                dict(shards, with_label=False, pipeline=steps, test_mode=True)
            )

    def __len__(self) -> int:
        return len(self.pack if self.is_pack else self.paths)

    def __getitem__(self, row: int) -> tuple[int, Any, str]:
        try:
            return row, self._sample(row), ''
        except UnreadableImage as error:
            return row, None, str(error)

    def name(self, row: int) -> str:
        """Path relative to the folder, with forward slashes, or the key in the pack."""
        path = self.pack.get_data_info(row)['img_path'] if self.is_pack else self.paths[row]
        if is_url(self.location):
            return path.removeprefix(self.location.rstrip('/') + '/')
        return Path(os.path.relpath(path, self.location)).as_posix()

    def picture(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. The images must have no transforms."""
        return self._sample(row)['img'][..., ::-1]

    def _sample(self, row: int) -> dict[str, Any]:
        return self.pack[row] if self.is_pack else self.read(dict(img_path=self.paths[row]))
