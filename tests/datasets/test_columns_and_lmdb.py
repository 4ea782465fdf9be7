"""Parquet, Arrow and LMDB against the files that they were made from."""

import pickle
import shutil
import sys

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from simclr_mm.commands.pack.folder import pack_folder
from simclr_mm.commands.pack.plan import PackSettings
from simclr_mm.datasets import HuggingFaceImages, ImageFolder, LMDBImages, shard_dataset
from simclr_mm.datasets.lmdb_images import _backend
from simclr_mm.errors import UserError
from simclr_mm.transforms import LoadImageFromFile, UnreadableImage

datasets = pytest.importorskip('datasets')
lmdb = pytest.importorskip('lmdb')


class Keep:
    def __call__(self, sample):
        return sample


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr('datasets.config.HF_DATASETS_CACHE', tmp_path / 'cache')


@pytest.fixture(scope='module')
def packs(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp('packs')
    for kind in ('parquet', 'lmdb'):
        pack_folder(photos, root / kind, PackSettings(kind, shard_images=7))
    return root


def files(photos):
    folder = ImageFolder(str(photos), pipeline=[Keep()])
    paths = [folder[i]['img_path'] for i in range(len(folder))]
    return [open(path, 'rb').read() for path in paths]


LABELS = [0] * 8 + [1] * 9 + [2] * 9  # i % 3 of 26, in the order a bird, cat, dog


@pytest.mark.parametrize('kind, cls', [('parquet', HuggingFaceImages), ('lmdb', LMDBImages)])
def test_a_pack_is_its_folder(photos, packs, kind, cls):
    config = shard_dataset(str(packs / kind))
    assert config == dict(type=f'simclr_mm.{cls.__name__}', data_root=str(packs / kind))
    data = cls(str(packs / kind), pipeline=[Keep()])
    assert [data[i]['img_bytes'] for i in range(26)] == files(photos)
    assert data.metainfo['classes'] == ('a bird', 'cat', 'dog')
    assert sorted(data.get_gt_labels().tolist()) == sorted(LABELS)
    assert data.get_gt_labels().tolist() == sorted(data.get_gt_labels().tolist())
    copy = pickle.loads(pickle.dumps(data))
    assert copy[5]['img_bytes'] == data[5]['img_bytes']
    assert 'gt_label' not in cls(str(packs / kind), with_label=False, pipeline=[Keep()])[0]


def test_a_database_is_opened_once_in_each_process(packs, photos):
    train, gallery = (LMDBImages(packs / 'lmdb', pipeline=[Keep()]) for _ in range(2))
    contents = files(photos)
    assert train.read(3) == gallery.read(3) == contents[3]
    loader = DataLoader(train, num_workers=2, collate_fn=_bytes)  # forks
    assert list(loader) == contents
    assert _backend.cache_info().currsize == 0  # it was closed before the forks
    assert train.read(4) == contents[4]


def _bytes(batch):
    return batch[0]['img_bytes']


def test_the_database_is_one_for_mmengine(photos, packs, tmp_path):
    shutil.copytree(packs / 'lmdb', tmp_path / 'copy')
    key = (packs / 'lmdb' / 'list.txt').read_text().splitlines()[3].rsplit(' ', 1)[0]
    load = LoadImageFromFile(backend_args=dict(backend='lmdb', db_path=str(tmp_path / 'copy')))
    expected = cv2.imread(str(photos / key))
    assert (load(dict(img_path=key))['img'] == expected).all()
    with pytest.raises(UnreadableImage, match='x.jpg: the database has no such key'):
        load(dict(img_path='x.jpg'))


@pytest.mark.parametrize('store', ['bytes', 'image', 'disk', 'splits'])
def test_columns_of_others(photos, tmp_path, store):
    contents = files(photos)[:4]
    values = contents
    features = dict(photo=datasets.Value('binary'), kind=datasets.Value('int32'))
    if store != 'bytes':
        values = [dict(bytes=content, path=None) for content in contents]
        values[2] = dict(bytes=None, path=str(next(photos.rglob('*.JPEG'))))
        features['photo'] = datasets.Image()
    table = datasets.Dataset.from_dict(
        dict(photo=values, kind=[3, 1, 0, 2]), datasets.Features(features)
    )
    if store == 'disk':
        table.save_to_disk(tmp_path / 'data')
    elif store == 'splits':
        datasets.DatasetDict(test=table).save_to_disk(tmp_path / 'data')
    else:
        (tmp_path / 'data').mkdir()
        table.to_parquet(tmp_path / 'data' / 'a.parquet')
    config = shard_dataset(str(tmp_path / 'data'))
    assert config['type'] == 'simclr_mm.HuggingFaceImages'
    options = dict(image_column='photo', label_column='kind', pipeline=[Keep()])
    if store == 'splits':
        options.update(split='test')
    data = HuggingFaceImages(str(tmp_path / 'data'), **options)
    assert [data.read(row) for row in (0, 1, 3)] == [contents[row] for row in (0, 1, 3)]
    if store == 'image':
        assert data.read(2) == next(photos.rglob('*.JPEG')).read_bytes()
    assert data.get_gt_labels().tolist() == [3, 1, 0, 2]
    assert data[1]['img_path'].endswith('data/row 1')


def test_mistakes_are_named(packs, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match='neither .*parquet nor'):
        HuggingFaceImages(str(tmp_path))
    with pytest.raises(ValueError, match="no column 'photo', only image, path, label"):
        HuggingFaceImages(str(packs / 'parquet'), image_column='photo')
    with pytest.raises(ValueError, match="no column 'kind', only .*: give label_column"):
        HuggingFaceImages(str(packs / 'parquet'), label_column='kind')
    with pytest.raises(FileNotFoundError, match='data.mdb: give the folder'):
        LMDBImages(str(tmp_path))
    table = datasets.Dataset.from_dict(dict(image=[b'a', None]))
    datasets.DatasetDict(a=table).save_to_disk(tmp_path / 'dict')
    with pytest.raises(ValueError, match="no split 'train', only a: give split"):
        HuggingFaceImages(str(tmp_path / 'dict'))
    data = HuggingFaceImages(str(tmp_path / 'dict'), split='a', with_label=False)
    with pytest.raises(UnreadableImage, match='dict/row 1: there is no image') as error:
        data.read(1)
    assert error.value.path == f'{tmp_path}/dict/row 1'


def test_a_split_is_never_ignored(packs, tmp_path):
    table = datasets.Dataset.from_dict(dict(image=[b'a'], label=[0]))
    table.save_to_disk(tmp_path / 'data')
    for place in (packs / 'parquet', tmp_path / 'data', 'https://example.org/a.parquet'):
        for split in ('train', 'test'):
            with pytest.raises(UserError, match=f"has no splits: leave split='{split}' out"):
                HuggingFaceImages(str(place), split=split)
    table.to_parquet(tmp_path / 'data' / 'a.parquet')
    (tmp_path / 'data' / 'state.json').unlink()
    with pytest.raises(UserError, match=r'holds \*.parquet and \*.arrow'):
        HuggingFaceImages(str(tmp_path / 'data'))


def test_columns_that_hold_something_else(tmp_path):
    columns = dict(image=[b'a', b'b'], text=['x', 'y'], share=[0.2, 1.0], label=['cat', 'dog'])
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / 'a.parquet')
    for column in ('text', 'share'):
        with pytest.raises(
            UserError, match=f"'{column}' holds .* no encoded images: set another image_"
        ):
            HuggingFaceImages(str(tmp_path), image_column=column)
        with pytest.raises(UserError, match=f"'{column}' holds .* no numbers of classes: give la"):
            HuggingFaceImages(str(tmp_path), label_column=column)
    # Names of classes do not stand in the way of a training without labels.
    assert HuggingFaceImages(str(tmp_path), with_label=False).read(1) == b'b'


@pytest.mark.parametrize(
    'package, extra, kind', [('datasets', 'parquet', 'parquet'), ('lmdb', 'lmdb', 'lmdb')]
)
def test_a_missing_package_names_its_extra(packs, package, extra, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    cls = dict(parquet=HuggingFaceImages, lmdb=LMDBImages)[kind]
    with pytest.raises(ImportError, match=rf"install 'simclr_mm\[{extra}\]'"):
        cls(str(packs / kind))


def test_labels_are_numbers_of_classes(packs, photos):
    labels = HuggingFaceImages(str(packs / 'parquet')).get_gt_labels()
    expected = [
        ['a bird', 'cat', 'dog'].index(path.parent.name)
        for path in sorted(photos.rglob('*.JPEG'), key=str)
    ]
    assert np.array_equal(labels, expected)
