"""Tar shards against webdataset's own reader and against the files they came from."""

import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from simclr_mm.commands.pack.folder import pack_folder
from simclr_mm.commands.pack.plan import PackSettings
from simclr_mm.datasets import TarShards, shard_dataset
from simclr_mm.errors import UserError
from simclr_mm.transforms import UnreadableImage

webdataset = pytest.importorskip('webdataset')


class Keep:
    """A pipeline that gives the sample as it came."""

    def __call__(self, sample):
        return sample


def shards(root, **kwargs):
    return TarShards(root, pipeline=[Keep()], **kwargs)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'home'))


@pytest.fixture(scope='module')
def pack(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp('pack')
    pack_folder(photos, out, PackSettings('tar', shard_images=7))
    return out


@pytest.fixture
def foreign(tmp_path):
    """Two tar files as other programs write them."""
    folder = tmp_path / 'foreign'
    folder.mkdir()
    for number, names in enumerate(
        (
            ['b/x.jpg', 'b/x.cls', 'b/x.seg.png', 'readme'],
            ['y.txt', 'y.JPEG', 'y.cls', 'z.cls', 'z.png'],
        )
    ):
        with tarfile.open(folder / f'part-{number}.tar', 'w') as tar:
            tar.addfile(_member('./folder/', b'', tarfile.DIRTYPE))
            for name in names:
                content = f'{name} {number}'.encode()
                if name.endswith('cls'):
                    content = b' %d\n' % (number + len(names))
                tar.addfile(_member(name, content), io.BytesIO(content))
    return folder


def _member(name, content, kind=tarfile.REGTYPE):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.type = kind
    return member


def test_a_pack_is_its_folder(photos, pack):
    data = shards(pack)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        folder = DATASETS.build(dict(type='CustomDataset', data_root=str(photos)))
    assert len(data) == len(folder) == 26
    assert data.metainfo['classes'] == folder.metainfo['classes']
    assert data.get_gt_labels().tolist() == folder.get_gt_labels().tolist()
    for row in range(26):
        info = folder.get_data_info(row)
        with open(info['img_path'], 'rb') as file:
            assert data[row]['img_bytes'] == file.read()
        assert data[row]['gt_label'] == info['gt_label']
        assert data[row]['sample_idx'] == row


def test_webdataset_reads_the_same_from_a_pack(pack):
    files = sorted(map(str, pack.glob('*.tar')))
    theirs = {
        sample['__key__']: sample for sample in webdataset.WebDataset(files, shardshuffle=False)
    }
    data = shards(pack)
    assert len(theirs) == len(data)
    for row in range(len(data)):
        sample = theirs[f'{row:09d}']
        assert sample['jpg'] == data[row]['img_bytes']
        assert int(sample['cls']) == data[row]['gt_label']


def test_images_of_a_class_are_spread_over_the_shards(pack):
    data = shards(pack)
    places = data.shards_of_images()
    assert np.bincount(places).tolist() == [7, 7, 7, 5]
    assert all(len(set(data.labels[places == k])) == 3 for k in range(3))


def test_webdataset_reads_the_same_from_foreign_shards(foreign):
    files = sorted(map(str, foreign.glob('*.tar')))
    theirs = list(webdataset.WebDataset(files, shardshuffle=False))
    data = shards(foreign)
    contents = [
        [value for key, value in sample.items() if key in ('jpg', 'jpeg', 'png')]
        for sample in theirs
    ]
    assert [[data[i]['img_bytes']] for i in range(3)] == [c for c in contents if c]
    assert data.get_gt_labels().tolist() == [4, 6, 6]
    assert data[0]['img_path'].endswith('part-0.tar/b/x.jpg')
    pattern = shards(foreign, shards='part-{0..1}.tar')
    assert pattern[2]['img_bytes'] == data[2]['img_bytes']
    assert len(shards(foreign, shards='part-1.tar')) == 2


def test_names_that_are_no_utf8(tmp_path):
    with tarfile.open(
        tmp_path / 'a.tar', 'w', format=tarfile.GNU_FORMAT, encoding='latin-1'
    ) as tar:
        tar.addfile(_member('K\xe4se.jpg', b'1'), io.BytesIO(b'1'))
    data = shards(tmp_path, with_label=False)
    assert data[0]['img_path'].endswith('a.tar/K\ufffdse.jpg')


def test_headers_of_foreign_shards_are_read_once(foreign, monkeypatch):
    shards(foreign)
    with monkeypatch.context() as patch:
        patch.setattr('simclr_mm.datasets.tar_index.index_tars', None)
        assert len(shards(foreign)) == 3
    with tarfile.open(foreign / 'part-1.tar', 'a') as tar:
        tar.addfile(_member('new.jpg', b'new'), io.BytesIO(b'new'))
    assert len(shards(foreign, with_label=False)) == 4


def test_a_shard_cut_short(pack, tmp_path):
    for path in pack.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = shards(tmp_path)
    with open(tmp_path / 'shard-00001.tar', 'r+b') as file:
        file.truncate(9000)
    rows = np.flatnonzero(data.shards_of_images() == 1)
    last = int(rows[np.argmax(data.index['offset'][rows])])
    with pytest.raises(UnreadableImage, match=f'shard-00001.tar/{last:09d}.jpg: the') as e:
        data[last]
    assert e.value.path == data.name(last)
    with pytest.raises(ValueError, match='shard-00001.tar has 9000 bytes, index.json'):
        shards(tmp_path)
    (tmp_path / 'shard-00001.tar').unlink()
    with pytest.raises(ValueError, match='shard-00001.tar is missing'):
        shards(tmp_path)


def test_mistakes_are_named(foreign, tmp_path):
    tar = (foreign / 'part-0.tar').read_bytes()
    for number, (content, message) in enumerate(
        (
            (gzip.compress(tar), 'uncompressed tar'),
            (tar[:700], 'not a complete'),
            (b'no tar' * 200, 'not a complete'),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / 'a.tar').write_bytes(content)
        with pytest.raises(ValueError, match=f'a.tar: .*{message}'):
            shards(folder)
    with pytest.raises(FileNotFoundError, match='nowhere holds no'):
        shards(tmp_path / 'nowhere')
    bad = tmp_path / 'bad'
    bad.mkdir()
    with tarfile.open(bad / 'a.tar', 'w') as tar:
        for name, content in (('a.jpg', b'1'), ('a.cls', b'dog')):
            tar.addfile(_member(name, content), io.BytesIO(content))
    with pytest.raises(ValueError, match="a.cls holds b'dog', which is no label"):
        shards(bad)
    unlabelled = tmp_path / 'unlabelled'
    unlabelled.mkdir()
    with tarfile.open(unlabelled / 'a.tar', 'w') as tar:
        tar.addfile(_member('a.jpg', b'1'), io.BytesIO(b'1'))
    with pytest.raises(ValueError, match='without a label: write with_label=False'):
        shards(unlabelled)
    assert 'gt_label' not in shards(unlabelled, with_label=False)[0]
    with pytest.raises(ValueError, match="type='simclr_mm.LoadImageFromFile'"):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            TarShards(foreign, pipeline=[dict(type='LoadImageFromFile')])


def test_some_shards_of_a_pack(pack):
    whole = shards(pack)
    for names, numbers in (('shard-00001.tar', [1]), ('shard-{00000..00001}.tar', [0, 1])):
        some = shards(pack, shards=names)
        rows = [row for row in range(len(whole)) if whole.index['shard'][row] in numbers]
        expected = {whole[row]['img_path']: whole[row]['gt_label'] for row in rows}
        assert {some[i]['img_path']: some[i]['gt_label'] for i in range(len(some))} == expected
    with pytest.raises(UserError, match=r"'\*.tar': a URL has no list of files, so write braces"):
        shards('https://example.org/packed', shards='*.tar')
    with pytest.raises(UserError, match='cache_gib = 0 of TarShards: give a number above 0'):
        shards(pack, cache_gib=0)


def test_parts_copies_and_many_open_files(pack, monkeypatch):
    monkeypatch.setattr('simclr_mm.datasets.tar_shards._OPEN_FILES', 2)
    whole = shards(pack)
    contents = [whole[row]['img_bytes'] for row in range(26)]
    assert [whole[row]['img_bytes'] for row in reversed(range(26))] == contents[::-1]
    part = shards(pack, indices=[5, 3, 20])
    assert [part[i]['img_bytes'] for i in range(3)] == [contents[i] for i in (5, 3, 20)]
    assert (part.shards_of_images() == whole.index['shard'][[5, 3, 20]]).all()
    copy = pickle.loads(pickle.dumps(whole))
    assert copy[7]['img_bytes'] == contents[7]


def test_what_a_folder_holds_is_recognised(pack, foreign, photos, tmp_path):
    assert shard_dataset(str(pack))['type'] == 'simclr_mm.TarShards'
    assert shard_dataset(str(foreign))['type'] == 'simclr_mm.TarShards'
    assert shard_dataset(str(photos)) is None
    (foreign / 'images').mkdir()  # the archive beside what came out of it
    assert shard_dataset(str(foreign)) is None
    assert shard_dataset(str(tmp_path / 'nowhere')) is None
    arrays = tmp_path / 'arrays'
    arrays.mkdir()
    np.save(arrays / 'a.npy', np.zeros((4, 4, 5)))
    (arrays / 'labels.parquet').touch()
    assert shard_dataset(str(arrays)) is None
    (arrays / 'images.tar').touch()  # what they came out of
    assert shard_dataset(str(arrays)) is None
    (arrays / 'more.tar').touch()  # more shards than arrays, which are then of labels
    assert shard_dataset(str(arrays))['type'] == 'simclr_mm.TarShards'
    signed = 'https://host/a.parquet?X-Signature=1'
    assert shard_dataset(signed)['type'] == 'simclr_mm.HuggingFaceImages'
    (foreign / 'index.json').write_text('[{"file": "a.jpg"}]')  # of who fetched the images
    assert shard_dataset(str(foreign)) is None
    (foreign / 'images').rmdir()
    with pytest.raises(ValueError, match='index.json is no index of simclr-mm pack'):
        shard_dataset(str(foreign))
    (foreign / 'index.json').unlink()
    (pack / 'index.json').rename(tmp_path / 'index.json')
    try:
        (pack / 'index.json').write_text('{"pack_version": 2}')
        with pytest.raises(ValueError, match='index.json is no index .* knows'):
            shard_dataset(str(pack))
    finally:
        (tmp_path / 'index.json').replace(pack / 'index.json')
