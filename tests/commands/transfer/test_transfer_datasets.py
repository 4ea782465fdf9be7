"""The datasets of transfer learning, found and split in small copies of their folders.

Images are red or blue by class, 3 of 4 to train on; VOC's may show both.
"""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain.datasets.categories import (
    FGVCAIRCRAFT_CATEGORIES,
    SUN397_CATEGORIES,
    VOC2007_CATEGORIES,
)
from scipy.io import savemat

from simclr_mm.apis import build_encoder
from simclr_mm.commands.command_line import build_dataset as build
from simclr_mm.commands.transfer import linear
from simclr_mm.commands.transfer.dataset_table import (
    DIGITS,
    TRANSFER_DATASETS,
    class_count,
    own_folder,
)
from simclr_mm.commands.transfer.linear import linear_transfer, prepared_for
from simclr_mm.datasets.nested import with_pipeline
from simclr_mm.evaluation import swept_linear_probe

CONFIG = Path(__file__).parents[3] / 'configs' / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'
TRAIN, TEST = range(12), range(12, 16)  # numbers of images; the class is number % 2


def picture(path: Path, red: bool, blue: bool, seed: int) -> None:
    """16 x 16 pixels of noise, in the colours of the classes."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (16, 16, 3)) + [180 * blue, 0, 180 * red]  # BGR
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image.astype(np.uint8))


def pictures(folder: Path, name: str, numbers=range(16)) -> None:
    """``name`` with {n} the number, and {c} the class."""
    for n in numbers:
        picture(folder / name.format(n=n, c=n % 2), n % 2 == 0, n % 2 == 1, n)


def write(path: Path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines))


def food101(root):
    names = {n: f'{["apple_pie", "waffles"][n % 2]}/{n}' for n in range(16)}
    for n, name in names.items():
        pictures(root / 'food-101/images', f'{name}.jpg', [n])
    write(root / 'food-101/meta/train.txt', [names[n] for n in TRAIN])
    write(root / 'food-101/meta/test.txt', [names[n] for n in TEST])


def sun397(root):
    classes = 'a/abbey', 'a/airplane_cabin'
    assert {'abbey', 'airplane_cabin'} <= set(SUN397_CATEGORIES)
    names = {n: f'/{classes[n % 2]}/sun_{n}.jpg' for n in range(16)}
    for n, name in names.items():
        pictures(root / 'SUN397/SUN397', name[1:], [n])
    write(root / 'SUN397/Partitions/Training_01.txt', [names[n] for n in TRAIN])
    write(root / 'SUN397/Partitions/Testing_01.txt', [names[n] for n in TEST])


def cars(root):
    devkit = root / 'Stanford_Cars/devkit'
    devkit.mkdir(parents=True)
    for part, numbers, file in (
        ('train', TRAIN, 'cars_train_annos'),
        ('test', TEST, 'cars_test_annos_withlabels'),
    ):
        pictures(root / 'Stanford_Cars' / f'cars_{part}', '{n:05d}.jpg', numbers)
        rows = [(n % 2 + 1, f'{n:05d}.jpg') for n in numbers]
        annotations = np.array(rows, dtype=[('class', object), ('fname', object)])
        savemat(devkit / f'{file}.mat', dict(annotations=annotations))


def aircraft(root):
    data = root / 'fgvc-aircraft-2013b/data'
    pictures(data / 'images', '{n:07d}.jpg')
    for split, numbers in (
        ('train', range(8)),
        ('val', range(8, 12)),
        ('trainval', TRAIN),
        ('test', TEST),
    ):
        write(
            data / f'images_variant_{split}.txt',
            [f'{n:07d} {FGVCAIRCRAFT_CATEGORIES[n % 2]}' for n in numbers],
        )


def voc2007(root):
    folder = root / 'VOCdevkit/VOC2007'
    for split, numbers in (
        ('train', range(8)),
        ('val', range(8, 12)),
        ('trainval', TRAIN),
        ('test', TEST),
    ):
        write(folder / f'ImageSets/Main/{split}.txt', [f'{n:06d}' for n in numbers])
    for n in range(16):
        shown = [n % 4 in (0, 2), n % 4 in (1, 2)]  # red, blue, both, none
        picture(folder / f'JPEGImages/{n:06d}.jpg', *shown, n)
        objects = [(VOC2007_CATEGORIES[k], 0) for k in range(2) if shown[k]]
        if n == 3:  # nothing but a difficult one
            objects = [(VOC2007_CATEGORIES[1], 1)]
        write(
            folder / f'Annotations/{n:06d}.xml',
            [
                '<annotation>',
                *(
                    f'<object><name>{name}</name><difficult>{difficult}</difficult></object>'
                    for name, difficult in objects
                ),
                '</annotation>',
            ],
        )


def dtd(root):
    pictures(root / 'dtd/images', 'banded/{n}.jpg')
    sets = [1] * 8 + [2] * 4 + [3] * 4
    (root / 'dtd/imdb').mkdir()
    names = np.array([f'banded/{n}.jpg' for n in range(16)], dtype=object)
    images = {'name': names, 'class': [n % 2 + 1 for n in range(16)], 'set': sets}
    savemat(root / 'dtd/imdb/imdb.mat', dict(images=images))


def pets(root):
    folder = root / 'Oxford-IIIT_Pets'
    pictures(folder / 'images', 'cat_{n}.jpg')
    for split, numbers in (('trainval', TRAIN), ('test', TEST)):
        write(folder / f'annotations/{split}.txt', [f'cat_{n} {n % 2 + 1} 1 1' for n in numbers])


def caltech101(root):
    folder = root / 'caltech-101/101_ObjectCategories'
    for n in range(16):
        name = ['accordion', 'wrench'][n % 2]
        pictures(folder, f'{name}/image_{n:04d}.jpg', [n])


def flowers102(root):
    folder = root / 'Flowers102'
    pictures(folder / 'jpg', 'image_{n:05d}.jpg', range(1, 17))
    savemat(folder / 'imagelabels.mat', dict(labels=[n % 2 + 1 for n in range(1, 17)]))
    savemat(
        folder / 'setid.mat',
        dict(trnid=list(range(1, 9)), valid=list(range(9, 13)), tstid=list(range(13, 17))),
    )


def cifar10(root):
    for n in range(16):
        part, name = 'train' if n in TRAIN else 'test', ['airplane', 'truck'][n % 2]
        pictures(root / 'cifar10' / part, f'{name}/{n}.png', [n])


def cifar100(root):
    for n in range(16):
        part, name = 'train' if n in TRAIN else 'test', ['apple', 'worm'][n % 2]
        pictures(root / 'cifar100' / part, f'{name}/{n}.png', [n])


MAKERS = dict(
    food101=food101,
    cifar10=cifar10,
    cifar100=cifar100,
    sun397=sun397,
    cars=cars,
    aircraft=aircraft,
    voc2007=voc2007,
    dtd=dtd,
    pets=pets,
    caltech101=caltech101,
    flowers102=flowers102,
)
# Images to fit, to choose by, to train on in the end, to test; a fifth of each class
# is held out where nothing else is said.
DRAWN, GIVEN, CALTECH = (10, 2, 12, 4), (8, 4, 12, 4), (8, 2, 10, 6)
COUNTS = dict.fromkeys(MAKERS, DRAWN)
COUNTS.update(aircraft=GIVEN, voc2007=GIVEN, dtd=GIVEN, flowers102=GIVEN, caltech101=CALTECH)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('transfer')
    for make in MAKERS.values():
        make(folder)
    return folder


@pytest.fixture(scope='module')
def encoder():
    return build_encoder(Config.fromfile(CONFIG))


@pytest.fixture
def few(monkeypatch):
    """5 of Caltech's 8 images of a class, for 30, and 2 penalties for 45."""
    monkeypatch.setattr(
        linear, 'swept_linear_probe', partial(swept_linear_probe, penalties=[10, 1])
    )
    caltech = TRANSFER_DATASETS['caltech101']._replace(draws=5)
    monkeypatch.setitem(TRANSFER_DATASETS, 'caltech101', caltech)


def test_every_dataset_of_the_paper_but_birdsnap():
    """Sec. B.8.1."""
    assert set(TRANSFER_DATASETS) == set(MAKERS)
    by_metric = {}
    for name, dataset in TRANSFER_DATASETS.items():
        by_metric.setdefault(tuple(dataset.metrics), set()).add(name)
    assert by_metric == {
        ('top1',): {'food101', 'cifar10', 'cifar100', 'sun397', 'cars', 'dtd'},
        ('mean_per_class',): {'aircraft', 'pets', 'caltech101', 'flowers102'},
        ('voc07_map',): {'voc2007'},
    }
    given = {name for name, each in TRANSFER_DATASETS.items() if each.validates}
    assert given == {'aircraft', 'voc2007', 'dtd', 'flowers102'}
    assert TRANSFER_DATASETS['caltech101'].draws == 30


@pytest.mark.parametrize('name', MAKERS)
def test_parts(root, few, name):
    dataset = TRANSFER_DATASETS[name]
    parts = dataset.parts(dataset.find(root), seed=0)
    built = {key: build(part) for key, part in parts._asdict().items()}
    assert tuple(map(len, built.values())) == COUNTS[name]
    if name == 'voc2007':
        assert class_count(built['fit']) == 20
        return
    labels = {key: each.get_gt_labels() for key, each in built.items()}
    for part in labels.values():  # as many of both classes
        values, counts = np.unique(part, return_counts=True)
        assert len(values) == 2 and len(set(counts)) == 1
    assert class_count(built['fit']) > max(map(max, labels.values()))
    images = {key: ids(each) for key, each in built.items()}
    assert images['train'] == images['fit'] | images['validation']
    assert not images['fit'] & images['validation']
    assert not images['train'] & images['test']


def ids(dataset) -> set:
    """What tells its images apart."""
    infos = [dataset.get_data_info(row) for row in range(len(dataset))]
    return {info['img_path'] if 'img_path' in info else info['img'].tobytes() for info in infos}


def test_another_seed_draws_other_images(root, few):
    dataset = TRANSFER_DATASETS['caltech101']
    draws = [ids(build(dataset.parts(dataset.find(root), seed).train)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_absent_datasets_are_not_found(tmp_path):
    (tmp_path / 'food-101').mkdir()  # an empty folder is none
    assert not any(each.find(tmp_path) for each in TRANSFER_DATASETS.values())
    assert DIGITS.find(tmp_path) is not None


@pytest.mark.parametrize('name', MAKERS)
def test_linear(root, few, encoder, name, tmp_path):
    """Colours are linear in the features of any encoder."""
    dataset = TRANSFER_DATASETS[name]
    parts = dataset.parts(dataset.find(root), seed=0)
    prepared = prepared_for(encoder, 8)
    # With a cache, the second call reads what the first wrote.
    first, second = (linear_transfer(prepared, dataset, parts, tmp_path) for _ in range(2))
    result = first[0]
    assert first == second and len(first) == 1
    assert (result.dataset, result.metric) == (dataset.title, dataset.metrics[0])
    assert result.value == 100
    assert result.settings['train_images'] == COUNTS[name][2]
    assert result.settings['test_images'] == COUNTS[name][3]


def test_targets_of_voc(root, few, encoder, tmp_path):
    """1 and 0 for what is there or not, -1 where only difficult objects show it."""
    dataset = TRANSFER_DATASETS['voc2007']
    parts = dataset.parts(dataset.find(root), seed=0)
    linear_transfer(prepared_for(encoder, 8), dataset, parts, tmp_path)
    kept = [np.load(file)['labels'] for file in tmp_path.glob('*.npz')]
    (fit,) = (targets for targets in kept if len(targets) == 8)
    assert fit.shape == (8, 20) and not fit[:, 2:].any()
    assert fit[:4, :2].tolist() == [[1, 0], [0, 1], [1, 1], [0, -1]]


def test_own_folder_with_a_validation_split(tmp_path, encoder, few):
    for part, numbers in (('train', range(8)), ('val', range(8, 12)), ('test', TEST)):
        pictures(tmp_path / part, '{c}/{n}.png', numbers)
    dataset = own_folder('mine', tmp_path)
    parts = dataset.parts(dataset.find(Path('anywhere')), seed=0)
    lengths = [len(build(with_pipeline(part, []))) for part in parts]
    assert lengths == [8, 4, 12, 4]
    results = linear_transfer(encoder, dataset, parts)
    assert [(each.metric, each.value) for each in results] == [
        ('top1', 100),
        ('mean_per_class', 100),
    ]


@pytest.mark.parametrize('given', [True, False])
def test_the_penalty_is_chosen_on_the_validation_part(given, tmp_path, encoder, monkeypatch):
    """Of the authors, or drawn by the seed: as fine-tuning has it, from the same."""
    pictures(tmp_path / 'train', '{c}/{n}.png', range(10))
    pictures(tmp_path / 'test', '{c}/{n}.png', TEST)
    if given:
        pictures(tmp_path / 'val', '{c}/{n}.png', range(10, 12))
    dataset = own_folder('mine', tmp_path)
    parts = dataset.parts(tmp_path, seed=1)
    seen = []
    probe = partial(swept_linear_probe, penalties=[1])
    monkeypatch.setattr(
        linear,
        'swept_linear_probe',
        lambda train, test, held_out, **kw: (
            seen.append(held_out) or probe(train, test, held_out=held_out, **kw)
        ),
    )
    linear_transfer(encoder, dataset, parts, seed=1)
    whole, held_out = build(parts.train), build(parts.validation)
    chosen = {whole.get_data_info(int(row))['img_path'] for row in seen[0]}
    assert chosen == ids(held_out) and len(chosen) == 2


def test_own_folder_without_a_test(tmp_path):
    pictures(tmp_path / 'train', '{c}/{n}.png', TRAIN)
    with pytest.raises(FileNotFoundError, match='mine=.*test/<class>/ or val'):
        own_folder('mine', tmp_path)
    pictures(tmp_path / 'val', 'other/{n}.png', TEST)
    with pytest.raises(ValueError, match='train and .*val have different.*0, 1, other'):
        own_folder('mine', tmp_path)


def test_preprocessing_of_the_paper(encoder):
    """Sec. B.8.1: 224 by 224, and 256 before fine-tuning's crop."""
    linear = prepared_for(encoder, 224).preprocessing
    tuned = prepared_for(encoder, 224, 256 / 224).preprocessing
    assert (linear.resize, linear.edge, linear.size) == (224, 'short', 224)
    assert (tuned.resize, tuned.edge, tuned.size) == (256, 'short', 224)
    assert linear.interpolation == tuned.interpolation == 'bicubic'
    assert prepared_for(encoder, None).preprocessing.size == 16  # the config's
