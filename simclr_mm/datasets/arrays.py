"""Small-image datasets held in memory."""

import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torchvision import datasets as torchvision_datasets

from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.registry import DATASETS
from simclr_mm.transforms.base import check_size

from .array_cache import Arrays, cached_arrays, files_key
from .array_dataset import ArrayDataset
from .decoded_files import read_images
from .image_folder import LabelledFiles, class_folders

DIGITS_TEST_IMAGES = 500


@DATASETS.register_module()
class Digits(ArrayDataset):
    """The 1797 handwritten digits of 8 x 8 pixels in scikit-learn.

    One fixed split, stratified by class: 1297 for training and 500 for testing. Needs no
    file and no network.
    """

    def load_arrays(self) -> Arrays:
        digits = load_digits()
        rows = train_test_split(
            np.arange(len(digits.target)),
            test_size=DIGITS_TEST_IMAGES,
            random_state=0,
            stratify=digits.target,
        )[self.SPLITS.index(self.split)]
        grey = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)  # 16 levels
        images = np.repeat(grey[..., None], 3, axis=-1)  # (N, 8, 8, 3)
        return Arrays(images, digits.target[rows], [str(digit) for digit in range(10)])


class _CachedDataset(ArrayDataset):
    """A dataset with a cache of its decoded images."""

    def _decode(self, files: LabelledFiles, size: int | None = None) -> Arrays:
        """Read files or their cache. ``size`` as in :func:`read_images`."""
        self.paths = files.paths  # for messages
        name = f'{type(self).__name__.lower()}-{self.split}'
        labels = np.array(files.labels)

        def key() -> str:
            return files_key(self.data_root, files.paths)

        def make() -> Arrays:
            before = key()
            arrays = Arrays(read_images(files.paths, size), labels, files.classes)
            if key() != before:
                raise UserError(
                    f'{self.data_root}: images changed while they were read: wait until nothing '
                    'writes there, and repeat the command'
                )
            return arrays

        stem = name if size is None else f'{name}-{size}px'
        arrays = cached_arrays(Path(self.data_root), stem, key, make)
        # An empty folder or an annotation file can rename classes without a new key.
        return arrays._replace(labels=labels, classes=files.classes)

    def _split_folders(self) -> list[str]:
        return [os.path.join(self.data_root, part) for part in self.split.split('+')]


class _FolderOrTorchvision(_CachedDataset):
    """A dataset in class folders, or else fetched by torchvision."""

    UNPACKED = ''  # torchvision's folder in data_root

    def load_arrays(self) -> Arrays:
        folders = self._split_folders()
        if all(map(os.path.isdir, folders)):
            return self._decode(class_folders(folders))
        unpacked = Path(self.data_root, self.UNPACKED)
        return cached_arrays(
            Path(self.data_root),
            f'{type(self).__name__.lower()}-{self.split}',
            key=lambda: files_key(unpacked, sorted(map(str, unpacked.glob('*')))),
            make=self._fetched,
        )

    def _fetched(self) -> Arrays:
        try:
            return self._torchvision()
        except (OSError, RuntimeError) as error:  # no network, no space, a wrong MD5 sum
            raise MissingFileError(
                f'{os.path.abspath(self.data_root)} has neither {self.split}/<class>/ nor '
                f'{self.UNPACKED}/, and {type(self).__name__} cannot be downloaded ({error})'
            ) from error

    def _torchvision(self) -> Arrays:
        raise NotImplementedError


@DATASETS.register_module()
class CIFAR10(_FolderOrTorchvision):
    """CIFAR-10: ``data_root/{train,test}/<class>/*``, or the original archive.

    Without these folders, torchvision downloads the archive to ``data_root`` and checks its
    MD5 sum.

    Raises:
        MissingFileError: There are no such folders, and the download fails.
    """

    UNPACKED = 'cifar-10-batches-py'
    TORCHVISION = 'CIFAR10'

    def _torchvision(self) -> Arrays:
        kind = getattr(torchvision_datasets, self.TORCHVISION)
        data = kind(self.data_root, train=self.split == 'train', download=True)
        return Arrays(data.data[..., ::-1], np.array(data.targets), data.classes)  # to BGR


@DATASETS.register_module()
class CIFAR100(CIFAR10):
    """CIFAR-100 with its 100 fine classes, stored and fetched as :class:`CIFAR10`."""

    UNPACKED = 'cifar-100-python'
    TORCHVISION = 'CIFAR100'


@DATASETS.register_module()
class STL10(_FolderOrTorchvision):
    """STL-10, 96 x 96 pixels: folders, or the original archive.

    The folders are ``data_root/{train,test}/<class>/*`` and ``data_root/unlabeled/*``.
    ``train+unlabeled`` has the 105,000 images for pretraining; 100,000 have no label.
    """

    SPLITS = ('train', 'test', 'unlabeled', 'train+unlabeled')
    UNPACKED = 'stl10_binary'

    def _torchvision(self) -> Arrays:
        data = torchvision_datasets.STL10(self.data_root, split=self.split, download=True)
        images = data.data.transpose(0, 2, 3, 1)[..., ::-1]  # (N, S, S, 3) BGR
        return Arrays(images, np.asarray(data.labels), data.classes)


@DATASETS.register_module()
class TinyImageNet(_CachedDataset):
    """Tiny-ImageNet: 100,000 images of 64 x 64 pixels in 200 classes.

    ``data_root`` is the unpacked archive, with ``train/<wnid>/images/*`` and ``val/images/*``
    labelled by ``val/val_annotations.txt``, or has class folders, ``{train,val}/<class>/*``.

    Raises:
        MissingFileError: The split's folder is missing. The message says how to fetch it.
    """

    SPLITS = ('train', 'val')

    def load_arrays(self) -> Arrays:
        folder = Path(self.data_root, self.split)
        if not folder.is_dir():
            raise MissingFileError(
                f'there is no folder {folder.absolute()}. To fetch Tiny-ImageNet: curl '
                '-LO http://cs231n.stanford.edu/tiny-imagenet-200.zip && unzip -q '
                f'tiny-imagenet-200.zip && mkdir -p {folder.parent.parent} && mv '
                f'tiny-imagenet-200 {folder.parent}'
            )
        if (folder / 'val_annotations.txt').is_file() and (folder / 'images').is_dir():
            return self._decode(_annotated(folder))
        return self._decode(class_folders(self._split_folders()))


def _annotated(folder: Path) -> LabelledFiles:
    """Images with classes from the annotation file: file, class, four numbers of a box."""
    lines = (folder / 'val_annotations.txt').read_text().splitlines()
    class_of = dict(line.split('\t')[:2] for line in lines)
    classes = sorted(set(class_of.values()))
    names = sorted(class_of)
    paths = [str(folder / 'images' / name) for name in names]
    return LabelledFiles(paths, [classes.index(class_of[name]) for name in names], classes)


@DATASETS.register_module()
class InMemoryFolder(_CachedDataset):
    """Every image below a folder, at any depth, in memory.

    Args:
        data_root: The folder.
        size: Images are resized, antialiased, to this many pixels on the short side, and
            cropped at the centre. None: all images already have one size.
        with_label: Whether the folders directly in ``data_root`` are the classes.
        **kwargs: As for :class:`ArrayDataset`, without ``split``.

    Raises:
        MissingFileError: There is no such folder.
        UserError: The folder holds no image, images cannot be read or differ in size, or they
            do not fit into the free memory.
    """

    SPLITS = ('all',)
    FIXED = ('split',)

    def __init__(
        self, data_root: str, size: int | None = None, with_label: bool = False, **kwargs
    ) -> None:
        if size is not None:
            check_size(size, 'InMemoryFolder')
        self.size = size
        super().__init__(data_root, 'all', with_label, **kwargs)

    def load_arrays(self) -> Arrays:
        return self._decode(class_folders([self.data_root]), self.size)


@DATASETS.register_module()
class ArrayFile(ArrayDataset):
    """The images in a ``.npy`` file, without labels.

    Args:
        data_root: The file: (N, H, W, 3) uint8, RGB as from Pillow and scikit-learn.
        **kwargs: As for :class:`ArrayDataset`, without ``split`` and ``with_label``.

    Raises:
        MissingFileError: There is no such file.
        UserError: It holds no such array.
    """

    SPLITS = ('all',)
    FIXED = ('split', 'with_label')

    def __init__(self, data_root: str, **kwargs) -> None:
        super().__init__(data_root, 'all', with_label=False, **kwargs)

    def load_arrays(self) -> Arrays:
        if not os.path.isfile(self.data_root):
            raise MissingFileError(f'there is no file {os.path.abspath(self.data_root)}')
        try:
            images = np.load(self.data_root, mmap_mode='r')
        except (EOFError, ValueError) as error:
            raise UserError(f'{self.data_root} is no .npy file of numbers: {error}') from error
        check_images(images, self.data_root)
        bgr = np.ascontiguousarray(images[..., ::-1])
        return Arrays(bgr, np.full(len(bgr), -1), [])


def check_images(images: np.ndarray, name: str) -> None:
    """Raise a UserError unless it is an array of images (N, H, W, 3) uint8, N >= 1."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise UserError(
            f'{name}: images are (N, height, width, 3) uint8 in RGB, got {images.shape} '
            f'{images.dtype}'
        )
