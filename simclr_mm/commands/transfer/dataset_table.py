"""The datasets of transfer learning as a table, and where they lie on a disk.

Source: SimCLR, arXiv:2002.05709, Sec. B.8.1, for metrics and splits.
"""

from pathlib import Path
from typing import NamedTuple

from mmengine.registry import DefaultScope
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from simclr_mm.datasets import ArrayDataset
from simclr_mm.errors import MissingFileError, UserError

Part = dict[str, object]  # config of a dataset, without a pipeline
VALIDATION_SHARE = 0.2  # held out where no split is given; the paper does not say
CALTECH_PER_CLASS = 30  # "we randomly chose 30 images per class"
# Pillow also reads the GIFs and PNGs that are named .jpg in SUN397 and Pets.
LOADING = dict(type='simclr_mm.LoadImageFromFile', imdecode_backend='pillow')


class Parts(NamedTuple):
    """Four datasets that an evaluation needs.

    Args:
        fit: Images to train on while something is chosen.
        validation: Images to choose by.
        train: Both, to train on when it is chosen.
        test: Images to score, once.
    """

    fit: Part
    validation: Part
    train: Part
    test: Part


class TransferDataset(NamedTuple):
    """A dataset, and how it is scored.

    Args:
        title: As the paper writes it.
        type: Its class.
        folders: Where it is looked for, below the root; the first is the usual one.
        needs: Files or folders in it, one of which shows that it is there.
        metrics: Names in ``CLASS_METRICS``; choices are made by the first.
        home: Page that it comes from.
        train: Split of all images to train on.
        test: Split to score.
        validates: Whether it has the splits 'train' and 'val', which together are
            'trainval'. Otherwise a share of each class is held out.
        draws: It has no splits: this many images of each class are drawn to train on.
    """

    title: str
    type: str
    folders: tuple[str, ...]
    needs: tuple[str, ...]
    metrics: tuple[str, ...]
    home: str
    train: str = 'train'
    test: str = 'test'
    validates: bool = False
    draws: int | None = None

    @property
    def multi_label(self) -> bool:
        return 'voc07_map' in self.metrics

    @property
    def in_memory(self) -> bool:
        """Whether images are arrays already, with no file to read."""
        return issubclass(DATASETS.get(self.type), ArrayDataset)

    def find(self, root: Path) -> Path | None:
        """Its folder, if it is there."""
        for folder in (root / name for name in self.folders):
            if any((folder / name).exists() for name in self.needs):
                return folder
        return None

    def parts(self, folder: Path, seed: int) -> Parts:
        """Its datasets.

        Args:
            folder: From :meth:`find`.
            seed: Of what is drawn.
        """
        if self.draws:
            drawn = dict(dataset=dict(type=self.type, data_root=str(folder)))
            drawn.update(type='simclr_mm.LabelSubset', per_class=self.draws, seed=seed)
            train, test = drawn, dict(drawn, rest=True)
        else:
            train, test = (self._split(folder, name) for name in (self.train, self.test))
        if self.validates:
            return Parts(self._split(folder, 'train'), self._split(folder, 'val'), train, test)
        held_out = dict(
            type='simclr_mm.LabelSubset', dataset=train, share=VALIDATION_SHARE, seed=seed
        )
        return Parts(dict(held_out, rest=True), held_out, train, test)

    def _split(self, folder: Path, name: str) -> Part:
        if self.type == 'CustomDataset' and name == 'trainval':
            both = [self._split(folder, each) for each in ('train', 'val')]
            return dict(type='ConcatDataset', datasets=both)
        if self.type == 'CustomDataset':  # class folders
            return dict(type=self.type, data_root=str(folder / name))
        return dict(type=self.type, data_root=str(folder), split=name)


_TOP1, _MEAN, _MAP = ('top1',), ('mean_per_class',), ('voc07_map',)
_OXFORD = 'https://www.robots.ox.ac.uk/~vgg/data/'
TRANSFER_DATASETS = dict(
    food101=TransferDataset(
        'Food-101',
        'Food101',
        ('food-101', 'food101'),
        ('meta/train.txt',),
        _TOP1,
        'https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/',
    ),
    cifar10=TransferDataset(
        'CIFAR-10',
        'simclr_mm.CIFAR10',
        ('cifar10', 'cifar-10'),
        ('cifar-10-batches-py/test_batch', 'test'),
        _TOP1,
        'https://www.cs.toronto.edu/~kriz/cifar.html',
    ),
    cifar100=TransferDataset(
        'CIFAR-100',
        'simclr_mm.CIFAR100',
        ('cifar100', 'cifar-100'),
        ('cifar-100-python/test', 'test'),
        _TOP1,
        'https://www.cs.toronto.edu/~kriz/cifar.html',
    ),
    sun397=TransferDataset(
        'SUN397',
        'SUN397',
        ('SUN397', 'sun397'),
        ('Partitions/Training_01.txt',),
        _TOP1,
        'https://vision.princeton.edu/projects/2010/SUN/',
    ),
    cars=TransferDataset(
        'Stanford Cars',
        'StanfordCars',
        ('Stanford_Cars', 'stanford_cars'),
        ('cars_annos.mat', 'devkit/cars_train_annos.mat'),
        _TOP1,
        'https://ai.stanford.edu/~jkrause/cars/car_dataset.html',
    ),
    aircraft=TransferDataset(
        'FGVC Aircraft',
        'FGVCAircraft',
        ('fgvc-aircraft-2013b', 'aircraft'),
        ('data/images_variant_trainval.txt',),
        _MEAN,
        f'{_OXFORD}fgvc-aircraft/',
        'trainval',
        validates=True,
    ),
    voc2007=TransferDataset(
        'VOC2007',
        'VOC',
        ('VOC2007', 'VOCdevkit/VOC2007'),
        ('ImageSets/Main/trainval.txt',),
        _MAP,
        'http://host.robots.ox.ac.uk/pascal/VOC/voc2007/',
        'trainval',
        validates=True,
    ),
    dtd=TransferDataset(
        'DTD',
        'DTD',
        ('dtd', 'DTD'),
        ('imdb/imdb.mat',),
        _TOP1,
        f'{_OXFORD}dtd/',
        'trainval',
        validates=True,
    ),
    pets=TransferDataset(
        'Oxford-IIIT Pets',
        'OxfordIIITPet',
        ('Oxford-IIIT_Pets', 'oxford-iiit-pet'),
        ('annotations/trainval.txt',),
        _MEAN,
        f'{_OXFORD}pets/',
        'trainval',
    ),
    caltech101=TransferDataset(
        'Caltech-101',
        'CustomDataset',
        ('caltech-101/101_ObjectCategories', 'caltech101/101_ObjectCategories'),
        ('accordion',),
        _MEAN,
        'https://data.caltech.edu/records/mzrjq-6wc02',
        draws=CALTECH_PER_CLASS,
    ),
    flowers102=TransferDataset(
        'Oxford 102 Flowers',
        'Flowers102',
        ('Flowers102', 'flowers-102'),
        ('setid.mat',),
        _MEAN,
        f'{_OXFORD}flowers/102/',
        'trainval',
        validates=True,
    ),
)

# Not of the paper; scikit-learn carries it, so it is everywhere.
DIGITS = TransferDataset(
    'digits', 'simclr_mm.Digits', ('',), ('',), _TOP1, 'https://scikit-learn.org'
)


def own_folder(title: str, folder: Path) -> TransferDataset:
    """A labelled dataset in class folders.

    Args:
        title: Its name.
        folder: With ``train/<class>/`` and ``test/<class>/``, and perhaps
            ``val/<class>/`` to choose by. Without a test, val is scored.

    Raises:
        FileNotFoundError: A part is missing.
        ValueError: The parts have different classes.
    """
    splits = [name for name in ('train', 'val', 'test') if (folder / name).is_dir()]
    if 'train' not in splits or len(splits) < 2:
        raise MissingFileError(
            f'--folder {title}={folder}: there is no '
            f'{folder}/train/<class>/ with {folder}/test/<class>/ '
            'or val'
        )
    names = [{each.name for each in (folder / name).iterdir() if each.is_dir()} for name in splits]
    differing = sorted(set.union(*names) - set.intersection(*names))
    if differing:
        raise UserError(
            f'--folder {title}={folder}: {" and ".join(splits)} have '
            f'different classes: not all have {", ".join(differing[:10])}'
        )
    whole = len(splits) == 3
    # Absolute, for find() looks below a root, where this folder need not lie.
    return TransferDataset(
        title,
        'CustomDataset',
        (str(folder.absolute()),),
        ('train',),
        ('top1', 'mean_per_class'),
        str(folder),
        train='trainval' if whole else 'train',
        test=splits[-1],
        validates=whole,
    )


def with_pipeline(part: Part, pipeline: list[dict]) -> Part:
    """The config of a dataset with the transforms of its images."""
    if 'dataset' in part:
        return dict(part, dataset=with_pipeline(part['dataset'], pipeline))
    if 'datasets' in part:
        inner = [with_pipeline(each, pipeline) for each in part['datasets']]
        return dict(part, datasets=inner)
    return dict(part, pipeline=pipeline)


def build(part: Part) -> BaseDataset:
    """The dataset of a config, without a pipeline or with one."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(part)


def class_count(dataset: BaseDataset) -> int:
    """How many classes a labelled dataset has."""
    classes = dataset.metainfo.get('classes')
    if classes:
        return len(classes)
    return int(dataset.get_gt_labels().max()) + 1  # Flowers, whose have no names
