"""Any folder of images, without labels."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mmpretrain.datasets import BaseDataset

from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.registry import DATASETS

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.ppm', '.pgm', '.tif', '.tiff')


def image_paths(folder: str | Path, extensions: Sequence[str] = EXTENSIONS) -> list[str]:
    """Files with these endings below a folder, at any depth, sorted; links followed."""
    return sorted(
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(tuple(extensions))
    )


@DATASETS.register_module()
class ImageFolder(BaseDataset):
    """Every image below a folder, at any depth, sorted by path; no labels.

    Args:
        data_root: The folder. Links to folders are followed.
        pipeline: Transforms of one sample.
        extensions: File-name endings that count as images, in lower case.
        **kwargs: As mmpretrain's BaseDataset, for example ``indices``.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The folder holds no image.
    """

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[dict | Callable] = (),
        extensions: Sequence[str] = EXTENSIONS,
        **kwargs,
    ) -> None:
        self.extensions = tuple(extensions)
        super().__init__(ann_file='', data_root=data_root, pipeline=list(pipeline), **kwargs)

    def load_data_list(self) -> list:
        root = Path(self.data_root)
        if not root.is_dir():
            raise MissingFileError(
                f'there is no folder {root.absolute()}: give the folder of your images '
                'with --data DIR or train_dataloader.dataset.data_root.'
            )
        paths = image_paths(root, self.extensions)
        if not paths:
            raise UserError(
                f'{root.absolute()} holds no image, at any depth: looked for '
                f'{", ".join(self.extensions)}. Give another folder (of a '
                'config: with --data DIR), or your endings as extensions of the '
                "config's dataset."
            )
        return [dict(img_path=path) for path in paths]
