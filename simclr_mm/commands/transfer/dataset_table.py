"""The datasets of transfer learning as a table, with their folders on disk.

Source: SimCLR, arXiv:2002.05709, Sec. B.8.1, for metrics and splits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from simclr_mm.commands.command_line.data_folder import check_same_classes
from simclr_mm.datasets import ArrayDataset
from simclr_mm.errors import MissingFileError
from simclr_mm.evaluation.linear_probe import VALIDATION_SHARE

Part = dict[str, Any]  # config of a dataset, without a pipeline
# Pillow also reads the GIF and PNG files with the ending .jpg in SUN397 and Pets.
LOADING = dict(type='simclr_mm.LoadImageFromFile', imdecode_backend='pillow')
CLASS_FOLDERS = 'simclr_mm.ImageFolder'


class Parts(NamedTuple):
    """The four datasets of an evaluation."""

    fit: Part  # images to train on while settings are chosen
    validation: Part  # images for choosing the settings
    train: Part  # both, for the training with the chosen settings
    test: Part  # images to score, once


class TransferDataset(NamedTuple):
    """A dataset with its metrics."""

    title: str  # its name in the paper
    type: str  # its class
    folders: Sequence[str]  # possible folders below the root; the first is the usual one
    needs: Sequence[str]  # files or folders in it; one of them shows that it exists
    metrics: Sequence[str]  # names in ``CLASS_METRICS``; the first one decides choices
    home: str  # its web page
    train: str = 'train'  # split of all images to train on
    test: str = 'test'  # split to score
    # Whether it has the splits 'train' and 'val'. Otherwise a share of each class is held out.
    validates: bool = False
    # Images of each class to draw for training, for a dataset without splits. For
    # Caltech-101 the paper "randomly chose 30 images per class".
    draws: int | None = None

    @property
    def multi_label(self) -> bool:
        return 'voc07_map' in self.metrics

    @property
    def in_memory(self) -> bool:
        """Whether images are arrays without files."""
        return issubclass(DATASETS.get(self.type), ArrayDataset)

    def find(self, root: Path) -> Path | None:
        """Its folder, if it exists."""
        for folder in (root / name for name in self.folders):
            if any((folder / name).exists() for name in self.needs):
                return folder
        return None

    def parts(self, folder: Path, seed: int) -> Parts:
        """Its datasets, in the folder from :meth:`find`. The seed determines the draws."""
        subset: Part = dict(type='simclr_mm.LabelSubset', seed=seed)
        if self.draws:
            whole = dict(type=self.type, data_root=str(folder), with_label=True)
            train = dict(subset, dataset=whole, per_class=self.draws)
            test = dict(train, rest=True)
        else:
            train, test = (self._split(folder, name) for name in (self.train, self.test))
        if self.validates:
            return Parts(self._split(folder, 'train'), self._split(folder, 'val'), train, test)
        held_out = dict(subset, dataset=train, share=VALIDATION_SHARE)  # the paper does not say
        return Parts(dict(held_out, rest=True), held_out, train, test)

    def _split(self, folder: Path, name: str) -> Part:
        if self.type == CLASS_FOLDERS and name == 'trainval':
            both = [self._split(folder, each) for each in ('train', 'val')]
            return dict(type='ConcatDataset', datasets=both)
        if self.type == CLASS_FOLDERS:
            return dict(type=self.type, data_root=str(folder / name), with_label=True)
        return dict(type=self.type, data_root=str(folder), split=name)


# Fields of TransferDataset by the dataset's name in flags and files.
_TABLE = """
food101:
  {title: Food-101, type: Food101, folders: [food-101, food101], needs: [meta/train.txt],
   metrics: [top1], home: https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/}
cifar10:
  {title: CIFAR-10, type: simclr_mm.CIFAR10, folders: [cifar10, cifar-10],
   needs: [cifar-10-batches-py/test_batch, test],
   metrics: [top1], home: https://www.cs.toronto.edu/~kriz/cifar.html}
cifar100:
  {title: CIFAR-100, type: simclr_mm.CIFAR100, folders: [cifar100, cifar-100],
   needs: [cifar-100-python/test, test],
   metrics: [top1], home: https://www.cs.toronto.edu/~kriz/cifar.html}
sun397:
  {title: SUN397, type: SUN397, folders: [SUN397, sun397], needs: [Partitions/Training_01.txt],
   metrics: [top1], home: https://vision.princeton.edu/projects/2010/SUN/}
cars:
  {title: Stanford Cars, type: StanfordCars, folders: [Stanford_Cars, stanford_cars],
   needs: [cars_annos.mat, devkit/cars_train_annos.mat],
   metrics: [top1], home: https://ai.stanford.edu/~jkrause/cars/car_dataset.html}
aircraft:
  {title: FGVC Aircraft, type: FGVCAircraft, folders: [fgvc-aircraft-2013b, aircraft],
   needs: [data/images_variant_trainval.txt], train: trainval, validates: true,
   metrics: [mean_per_class], home: https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/}
voc2007:
  {title: VOC2007, type: VOC, folders: [VOC2007, VOCdevkit/VOC2007],
   needs: [ImageSets/Main/trainval.txt], train: trainval, validates: true,
   metrics: [voc07_map], home: http://host.robots.ox.ac.uk/pascal/VOC/voc2007/}
dtd:
  {title: DTD, type: DTD, folders: [dtd, DTD], needs: [imdb/imdb.mat],
   train: trainval, validates: true,
   metrics: [top1], home: https://www.robots.ox.ac.uk/~vgg/data/dtd/}
pets:
  {title: Oxford-IIIT Pets, type: OxfordIIITPet, folders: [Oxford-IIIT_Pets, oxford-iiit-pet],
   needs: [annotations/trainval.txt], train: trainval,
   metrics: [mean_per_class], home: https://www.robots.ox.ac.uk/~vgg/data/pets/}
caltech101:
  {title: Caltech-101, type: simclr_mm.ImageFolder, needs: [accordion], draws: 30,
   folders: [caltech-101/101_ObjectCategories, caltech101/101_ObjectCategories],
   metrics: [mean_per_class], home: https://data.caltech.edu/records/mzrjq-6wc02}
flowers102:
  {title: Oxford 102 Flowers, type: Flowers102, folders: [Flowers102, flowers-102],
   needs: [setid.mat], train: trainval, validates: true,
   metrics: [mean_per_class], home: https://www.robots.ox.ac.uk/~vgg/data/flowers/102/}
"""


TRANSFER_DATASETS = {
    name: TransferDataset(**fields) for name, fields in yaml.safe_load(_TABLE).items()
}

# Not in the paper. scikit-learn contains it, so it is always available.
DIGITS = TransferDataset(
    'digits', 'simclr_mm.Digits', ('',), ('',), ('top1',), 'https://scikit-learn.org'
)


def own_folder(title: str, folder: Path) -> TransferDataset:
    """A labelled dataset in ``folder/{train,val,test}/<class>/``. One of val and test may miss.

    With both, settings are chosen on val. Without a test part, val is scored.
    """
    splits = [name for name in ('train', 'val', 'test') if (folder / name).is_dir()]
    if 'train' not in splits or len(splits) < 2:
        raise MissingFileError(
            f'--folder {title}={folder}: there is no {folder}/train/<class>/ with '
            f'{folder}/test/<class>/ or val'
        )
    for name in splits[1:]:
        check_same_classes(f'--folder {title}={folder}', folder / 'train', folder / name)
    whole = len(splits) == 3
    # Absolute, because find() joins it to a root that may not contain it.
    place, metrics = [str(folder.absolute())], ['top1', 'mean_per_class']
    own = title, CLASS_FOLDERS, place, ['train'], metrics, str(folder)
    train = 'trainval' if whole else 'train'
    return TransferDataset(*own, train=train, test=splits[-1], validates=whole)


def class_count(dataset: BaseDataset) -> int:
    """The number of classes of a labelled dataset."""
    classes = dataset.metainfo.get('classes')
    if classes:
        return len(classes)
    return int(dataset.get_gt_labels().max()) + 1  # Flowers102 has no class names
