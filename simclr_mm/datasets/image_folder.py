"""A folder of images, without labels or with folder names as labels."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from simclr_mm.errors import UserError, listed
from simclr_mm.files.walk import EXTENSIONS, image_paths
from simclr_mm.registry import DATASETS
from simclr_mm.transforms.loading import extensions_of


class LabelledFiles(NamedTuple):
    """Image files, their labels (-1 for none), and the class names."""

    paths: list[str]
    labels: list[int]
    classes: list[str]


def class_names_of(folder: str) -> list[str]:
    """The sorted names of the folders directly in a folder, without hidden ones."""
    with os.scandir(folder) as entries:  # which knows what is a folder without a look at each
        return sorted(each.name for each in entries if each.name[0] != '.' and _is_folder(each))


def _is_folder(entry: os.DirEntry) -> bool:
    # A link may lead to itself, or to where nobody may look.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def class_folders(folders: Sequence[str], extensions: Sequence[str] = EXTENSIONS) -> LabelledFiles:
    """Images in ``folder/<class>/`` at any depth, and images directly in ``folder``, unlabelled.

    Raises:
        UserError: A folder is missing or holds no image.
    """
    paths, parts = [], []
    for folder in folders:
        files = image_paths(folder, extensions)
        below = len(os.path.join(folder, ''))
        paths += files
        parts += [path[below:].split(os.sep) for path in files]
    classes = sorted({name for folder in folders for name in class_names_of(folder)})
    label_of = {name: label for label, name in enumerate(classes)}
    # Image files directly in a folder have no class.
    labels = [label_of[part[0]] if len(part) > 1 else -1 for part in parts]
    empty = sorted(set(range(len(classes))) - set(labels))
    if empty:
        print_log(
            f'{", ".join(folders)}: {len(empty)} of {len(classes)} classes have no image: '
            f'{listed((classes[label] for label in empty), 10)}',
            logger='current',
        )
    return LabelledFiles(paths, labels, classes)


@DATASETS.register_module()
class ImageFolder(BaseDataset):
    """Every image below a folder, at any depth, sorted by path.

    Args:
        data_root: The folder. Links are followed and hidden names left out. One line of the
            log counts all other files.
        pipeline: Transforms of one sample.
        extensions: File-name endings of images, in lower case. None: those that the pipeline's
            loading step reads.
        with_label: The folders directly in ``data_root`` are the classes, sorted by name. Images
            outside these folders have no class and are left out, with a line in the log.
        **kwargs: As for mmpretrain's BaseDataset, for example ``indices``.

    Raises:
        MissingFileError: There is no such folder.
        UserError: The folder holds no image, or metainfo names another number of classes.
    """

    FIXED = ('ann_file',)  # given to the base class

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[dict | Callable] = (),
        extensions: Sequence[str] | None = None,
        with_label: bool = False,
        **kwargs,
    ) -> None:
        self.extensions = extensions
        self.with_label = with_label
        super().__init__(ann_file='', data_root=data_root, pipeline=list(pipeline), **kwargs)

    def load_data_list(self) -> list:
        extensions = self.extensions or extensions_of(self.pipeline.transforms)
        if not self.with_label:
            return [dict(img_path=path) for path in image_paths(self.data_root, extensions)]
        paths, labels, classes = class_folders([self.data_root], extensions)
        images = [
            dict(img_path=path, gt_label=label) for path, label in zip(paths, labels) if label >= 0
        ]
        if not images:
            raise UserError(
                f'{self.data_root} holds no <class>/<image> files: put images into class folders'
            )
        if len(images) < len(paths):
            print_log(
                f'{self.data_root}: left out {len(paths) - len(images)} images that lie in no '
                f'folder of a class, the first {paths[labels.index(-1)]}',
                logger='current',
            )
        named = self._metainfo.setdefault('classes', tuple(classes))
        if len(named) != len(classes):
            raise UserError(
                f'{self.data_root} has {len(classes)} class folders, but metainfo.classes of its '
                f'dataset names {len(named)}: name as many, in the order of the sorted folders.'
            )
        return images
