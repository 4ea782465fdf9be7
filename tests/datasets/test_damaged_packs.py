"""Packs that are cut short, mixed up or written to do harm are refused in a line."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest

from simclr_mm.commands.pack.folder import pack_folder
from simclr_mm.commands.pack.plan import PackSettings
from simclr_mm.datasets import HuggingFaceImages, LMDBImages, TarShards
from simclr_mm.datasets.shard_cache import ShardCache
from simclr_mm.errors import UserError

pytest.importorskip('webdataset')
datasets = pytest.importorskip('datasets')
lmdb = pytest.importorskip('lmdb')
TYPES = dict(tar=TarShards, parquet=HuggingFaceImages, lmdb=LMDBImages)


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'home'))
    monkeypatch.setattr('datasets.config.HF_DATASETS_CACHE', tmp_path / 'cache')


@pytest.fixture(scope='module')
def packs(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp('packs')
    for kind in TYPES:
        pack_folder(photos, root / kind, PackSettings(kind, shard_images=7))
    return root


@pytest.fixture
def copy(packs, tmp_path):
    def make(kind):
        return shutil.copytree(packs / kind, tmp_path / kind)

    return make


def refuse(kind, folder, message):
    with pytest.raises(UserError, match=message) as error:
        TYPES[kind](str(folder))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'kind, file', [('tar', 'shard-00001.tar'), ('parquet', 'shard-00001.parquet')]
)
def test_a_shard_cut_short(copy, kind, file):
    folder = copy(kind)
    with open(folder / file, 'r+b') as shard:
        shard.truncate(1000)
    refuse(kind, folder, f'{file} has 1000 bytes, index.json says')


@pytest.mark.parametrize('pages', [0.5, 2, 10])
def test_a_database_cut_short(copy, pages):
    """Reading behind its end ends a process by a signal, SIGBUS."""
    folder = copy('lmdb')
    with open(folder / 'data.mdb', 'r+b') as file:
        file.truncate(int(pages * 4096))
    refuse('lmdb', folder, 'data.mdb')
    (folder / 'data.mdb').write_bytes(b'no database' * 2000)
    refuse('lmdb', folder, 'data.mdb')


def test_a_list_of_keys_cut_short(copy):
    folder = copy('lmdb')
    text = (folder / 'list.txt').read_text()
    (folder / 'list.txt').write_text(text[:-1])
    refuse('lmdb', folder, 'list.txt has .* copy it again')
    (folder / 'list.txt').write_text('\n'.join(text.split('\n')[1:]))
    refuse('lmdb', folder, 'list.txt has 25 whole lines, index.json says 26')


def test_places_of_images_that_are_damaged(copy):
    folder = copy('tar')
    places = folder / 'index.npz'
    content = places.read_bytes()
    for damaged in (b'', b'no zip', content[: len(content) // 2], content[:-30]):
        places.write_bytes(damaged)
        refuse('tar', folder, 'index.npz is no list of images, or a damaged one')
    np.save(open(places, 'wb'), np.zeros(3))
    refuse('tar', folder, 'index.npz is no list of images')


@pytest.mark.parametrize(
    'column, value', [('size', 2**40), ('size', -1), ('offset', -512), ('shard', 4), ('shard', -1)]
)
def test_places_outside_of_their_shards(copy, column, value):
    folder = copy('tar')
    with np.load(folder / 'index.npz') as file:
        columns = dict(file)
    columns[column][3] = value
    np.savez(folder / 'index.npz', **columns)
    refuse('tar', folder, 'index.npz does not belong to the index.json')


def test_places_of_another_pack(copy, photos):
    folder = copy('tar')
    with np.load(folder / 'index.npz') as file:
        np.savez(folder / 'index.npz', **{name: column[:-1] for name, column in file.items()})
    refuse('tar', folder, 'index.npz does not belong')


@pytest.mark.parametrize(
    'name', ['..%2F..%2FOUT.txt', '../OUT.tar', '/etc/passwd', '..', '.', '', 'a/b.tar', 'a\\b']
)
@pytest.mark.parametrize('kind', ['tar', 'parquet'])
def test_a_shard_that_would_lie_elsewhere(copy, kind, name):
    folder = copy(kind)
    index = json.loads((folder / 'index.json').read_text())
    index['shards'][1]['name'] = name
    (folder / 'index.json').write_text(json.dumps(index))
    refuse(kind, folder, 'index.json (names the shard|is no index)')


def test_the_same_by_url(copy, tmp_path):
    fsspec = pytest.importorskip('fsspec')
    folder = copy('tar')
    index = json.loads((folder / 'index.json').read_text())
    index['shards'][0]['name'] = '..%2F..%2FOUT.txt'
    memory = fsspec.filesystem('memory')
    memory.pipe_file('/hostile/index.json', json.dumps(index).encode())
    memory.pipe_file('/hostile/index.npz', (folder / 'index.npz').read_bytes())
    refuse('tar', 'memory://hostile', 'names the shard .*OUT.txt')
    assert not list(tmp_path.rglob('OUT.txt'))


def test_names_of_urls_stay_inside_the_cache(tmp_path):
    cache = ShardCache(1)
    for name in ('..%2F..%2FOUT.txt', '%2e%2e', 'a b.tar', 'x.tar?name=../../OUT.txt'):
        path = cache.path(f'https://example.org/a/{name}')
        assert path.parent.parent == cache.folder and '..' not in path.parts
    for url in ('https://example.org/', 'https://example.org/..', 'https://example.org/?a.tar'):
        with pytest.raises(UserError, match='does not end in the name of a file'):
            cache.path(url)


def test_one_name_with_two_queries_is_two_files():
    cache = ShardCache(1)
    assert cache.path('https://x.org/get.tar?id=1') != cache.path('https://x.org/get.tar?id=2')


@pytest.mark.parametrize(
    'content',
    [
        '<html>',
        '[' * 100000,
        '[]',
        'null',
        '{"pack_version": 1}',
        '{"pack_version": 1, "format": "tar", "shards": 3}',
        '{"pack_version": 1, "format": "tar", "shards": [{"name": "a.tar"}]}',
        '{"pack_version": 1, "format": "zip", "shards": []}',
        '{"pack_version": 1, "format": "tar", "shards": []}',
        '{"pack_version": 1, "format": "tar", "shards": [], "images": "3", "labels": false, '
        '"classes": null, "settings": {}, "unreadable": 0}',
    ],
)
def test_an_index_that_is_none(copy, content):
    folder = copy('tar')
    (folder / 'index.json').write_text(content)
    refuse('tar', folder, 'index.json is no index of simclr-mm pack')


@pytest.mark.parametrize('label', [b'9' * 30, b'-1', b'', b'1 2', '\u0663'.encode(), b'\xff'])
def test_labels_in_a_tar_that_are_none(tmp_path, label):
    write_tar(tmp_path / 'a.tar', {'a.jpg': b'1', 'a.cls': label})
    refuse('tar', tmp_path, 'a.cls holds .* which is no label')


def test_a_long_list_of_names_takes_little_memory(tmp_path):
    names = ['x' * 100_000, *map(str, range(2000))]
    write_tar(tmp_path / 'a.tar', {f'{name}.jpg': b'1' for name in names})
    data = TarShards(str(tmp_path), with_label=False)
    assert len(data) == 2001 and data.index['name'].nbytes < 4e6


def test_every_name_in_a_tar(tmp_path):
    names = ['two\nlines.jpg', '$a.jpg', '../up.jpg', '/abs.jpg', 'd.e/f.seg.jpg']
    write_tar(tmp_path / 'a.tar', {name: name.encode() for name in names})
    data = TarShards(str(tmp_path), with_label=False)
    assert [data.read(row).decode() for row in range(4)] == names[:4] and len(data) == 4


def test_a_table_that_is_none(tmp_path):
    (tmp_path / 'a.parquet').write_bytes(b'PAR1 is not all')
    refuse('parquet', tmp_path, 'is no table of images')


def write_tar(path, files):
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
