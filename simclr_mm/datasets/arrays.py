"""Small-image datasets held in memory: digits, CIFAR-10 and STL-10."""
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from mmengine.dataset import force_full_init
from mmengine.dist import barrier, is_main_process
from mmpretrain.datasets import BaseDataset
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torchvision import datasets as torchvision_datasets

from simclr_mm.registry import DATASETS

Arrays = Tuple[np.ndarray, np.ndarray, Tuple[str, ...]]
DIGITS_TEST_IMAGES = 500


class ArrayDataset(BaseDataset):
    """Images in one uint8 array (N, S, S, 3), BGR, with one label each.

    Args:
        data_root: Folder of the data; unused where a library carries it.
        split: Which part, one of the class's ``SPLITS``.
        with_label: Whether samples carry ``gt_label``. Images without one (STL-10's
            unlabelled split) never do.
        pipeline: Transforms of one sample.
        **kwargs: As mmpretrain's BaseDataset, for example ``indices``.

    Raises:
        ValueError: An unknown split.
    """
    SPLITS: Tuple[str, ...] = ('train', 'test')

    def __init__(self,
                 data_root: str = '',
                 split: str = 'train',
                 with_label: bool = True,
                 pipeline: Sequence[Union[dict, Callable]] = (),
                 **kwargs) -> None:
        if split not in self.SPLITS:
            raise ValueError(f'{type(self).__name__}.split is {split!r}: choose one of '
                             f'{", ".join(self.SPLITS)}.')
        self.split = split
        self.with_label = with_label
        # The array is shared by forked workers; a serialised copy would double it.
        super().__init__(
            ann_file='',
            data_root=data_root,
            pipeline=list(pipeline),
            serialize_data=False,
            **kwargs)

    def load_arrays(self) -> Arrays:
        """(N, S, S, 3) uint8 BGR images, (N,) labels, class names."""
        raise NotImplementedError

    def load_data_list(self) -> list:
        self.images, labels, classes = self.load_arrays()
        self._metainfo.setdefault('classes', tuple(classes))
        return [
            dict(row=row, gt_label=int(label))
            if self.with_label and label >= 0 else dict(row=row)
            for row, label in enumerate(labels)
        ]

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        info['img'] = self.images[info.pop('row')]
        info['img_shape'] = info['ori_shape'] = info['img'].shape[:2]
        return info


@DATASETS.register_module()
class Digits(ArrayDataset):
    """The 1797 handwritten digits of 8 x 8 pixels that scikit-learn carries.

    Split once, stratified by class, into 1297 for training and 500 for testing. Needs
    no file and no network.
    """

    def load_arrays(self) -> Arrays:
        digits = load_digits()
        rows = train_test_split(
            np.arange(len(digits.target)),
            test_size=DIGITS_TEST_IMAGES,
            random_state=0,
            stratify=digits.target)[self.SPLITS.index(self.split)]
        grey = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)  # 16 levels
        images = np.repeat(grey[..., None], 3, axis=-1)  # (N, 8, 8, 3)
        return images, digits.target[rows], [str(digit) for digit in range(10)]


class _FolderOrTorchvision(ArrayDataset):
    """A dataset kept as class folders or, failing these, fetched by torchvision."""

    def load_arrays(self) -> Arrays:
        folders = [Path(self.data_root, part) for part in self.split.split('+')]
        if all(folder.is_dir() for folder in folders):
            return _read_class_folders(folders)
        if is_main_process():
            self._torchvision(download=True)
        barrier()
        return self._torchvision(download=False)

    def _torchvision(self, download: bool) -> Arrays:
        raise NotImplementedError


@DATASETS.register_module()
class CIFAR10(_FolderOrTorchvision):
    """CIFAR-10: ``data_root/{train,test}/<class>/*`` or the archive from its home.

    Where the folders are absent, torchvision downloads the archive to ``data_root`` and
    checks its MD5 sum.
    """

    def _torchvision(self, download: bool) -> Arrays:
        data = torchvision_datasets.CIFAR10(
            self.data_root, train=self.split == 'train', download=download)
        return data.data[..., ::-1], np.array(data.targets), data.classes  # RGB to BGR


@DATASETS.register_module()
class STL10(_FolderOrTorchvision):
    """STL-10, 96 x 96 pixels: folders, or the archive from its home.

    The folders are ``data_root/{train,test}/<class>/*`` and ``data_root/unlabeled/*``.

    ``train+unlabeled`` are the 105,000 images for pretraining; the 100,000 of
    ``unlabeled`` carry no label.
    """
    SPLITS = ('train', 'test', 'unlabeled', 'train+unlabeled')

    def _torchvision(self, download: bool) -> Arrays:
        data = torchvision_datasets.STL10(
            self.data_root, split=self.split, download=download)
        images = data.data.transpose(0, 2, 3, 1)[..., ::-1]  # (N, S, S, 3) BGR
        return images, np.asarray(data.labels), data.classes


def _read_class_folders(folders: List[Path]) -> Arrays:
    """Read ``folder/<class>/*`` and, without a label, ``folder/*``, all of one size."""
    classes = sorted(
        {path.name
         for folder in folders
         for path in folder.iterdir() if path.is_dir()})
    paths, labels = [], []
    for folder in folders:
        files = sorted(path for path in folder.rglob('*') if path.is_file())
        paths += files
        labels += [
            -1 if path.parent == folder else classes.index(path.parent.name)
            for path in files
        ]
    if not paths:
        raise ValueError(f'{folders[0]} holds no <class>/<image> files.')
    images: Optional[np.ndarray] = None
    progress = track(paths, f'reading {folders[0].parent}', transient=True)
    for row, path in enumerate(progress):
        image = cv2.imread(str(path))  # (S, S, 3) BGR
        if image is None:
            raise ValueError(f'{path} is not an image: remove it or fetch it again.')
        if images is None:
            images = np.empty((len(paths), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise ValueError(
                f'{path} is {image.shape[1]} x {image.shape[0]} pixels, the images '
                f'before it {images.shape[2]} x {images.shape[1]}: a dataset in memory '
                "needs one size. Use type='simclr_mm.ImageFolder' for mixed sizes.")
        images[row] = image
    return images, np.array(labels), classes
