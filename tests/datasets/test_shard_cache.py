"""Shards fetched from a web server of this machine."""

import errno
import multiprocessing
import os
import shutil
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from simclr_mm.commands.pack.folder import pack_folder
from simclr_mm.commands.pack.plan import PackSettings
from simclr_mm.datasets import SampleIndex, TarShards, shard_dataset, tar_index
from simclr_mm.datasets.shard_cache import ShardCache

pytest.importorskip('webdataset')


class Keep:
    def __call__(self, sample):
        return sample


@pytest.fixture(scope='module')
def pack(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp('web')
    pack_folder(photos, out, PackSettings('tar', shard_images=7))
    return out


@pytest.fixture
def web(pack, tmp_path, monkeypatch):
    """URL of the pack, and the paths that were asked for."""
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'home'))
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, code='-', size='-'):
            asked.append(self.path)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=pack))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}', asked
    server.shutdown()
    thread.join()
    server.server_close()


def shards(url, **kwargs):
    return TarShards(url, pipeline=[Keep()], **kwargs)


def contents(data):
    return [data[i]['img_bytes'] for i in range(len(data))]


def test_a_pack_on_the_web_is_the_pack(web, pack):
    url, asked = web
    data = shards(url)
    assert sorted(asked) == ['/index.json', '/index.npz']  # no shard before its images
    assert contents(data) == contents(shards(pack))
    assert data.metainfo['classes'] == ('a bird', 'cat', 'dog')
    assert asked.count('/shard-00000.tar') == 1
    again = shards(f'{url}/')
    assert contents(again) == contents(data)
    assert asked.count('/shard-00000.tar') == 1  # still there
    assert shard_dataset(url) == dict(type='simclr_mm.TarShards', data_root=url)


def test_the_oldest_shards_make_room(web, pack):
    url, asked = web
    size = (pack / 'shard-00000.tar').stat().st_size
    data = shards(url, cache_gib=2.5 * size / 2**30)
    order = np.argsort(data.shards_of_images(), kind='stable')
    for row in order:
        data[int(row)]
    names = sorted(path.name for path in data.cache.folder.glob('*/*.tar'))
    assert names == ['shard-00002.tar', 'shard-00003.tar']
    # What is open can be read after it made room.
    assert data[int(order[0])]['img_bytes'] == shards(pack)[int(order[0])]['img_bytes']
    assert len(asked) == 2 + 4


def test_what_was_used_last_stays(web, pack):
    url, _ = web
    cache = ShardCache(2.5 * (pack / 'shard-00000.tar').stat().st_size / 2**30)
    for number, age in ((0, 30), (1, 20)):
        shard = f'{url}/shard-0000{number}.tar'
        cache.open(shard).close()
        os.utime(cache.path(shard), (time.time() - age,) * 2)
    cache.open(f'{url}/shard-00000.tar').close()
    cache.open(f'{url}/shard-00002.tar').close()
    names = sorted(path.name for path in cache.folder.glob('*/*.tar'))
    assert names == ['shard-00000.tar', 'shard-00002.tar']


def test_another_pack_at_the_same_place(web, pack, photos, tmp_path):
    url, _ = web
    data = shards(url)
    data[0]
    (tmp_path / 'old').mkdir()
    for path in pack.iterdir():
        path.rename(tmp_path / 'old' / path.name)
    try:
        pack_folder(photos, pack, PackSettings('tar', 32, 50, shard_images=7))
        small = shards(url)
        assert len(small[0]['img_bytes']) < len(data[0]['img_bytes'])
        assert small.read(0) == shards(pack).read(0)
    finally:
        for path in (tmp_path / 'old').iterdir():
            path.replace(pack / path.name)


def test_a_shard_is_fetched_ahead(web):
    url, asked = web
    data = shards(url)
    row = int(np.flatnonzero(data.shards_of_images() == 0)[0])
    data[SampleIndex(row, ahead=3)]
    for thread in threading.enumerate():
        if thread.name.endswith('(_fetch)'):
            thread.join(10)
    assert sorted(asked[2:]) == ['/shard-00000.tar', '/shard-00003.tar']


def _open(url, size, home):
    os.environ['SIMCLR_MM_HOME'] = home
    return ShardCache(1).open(url, size).read()


def test_processes_fetch_a_shard_once(web, pack, tmp_path):
    url, asked = web
    content = (pack / 'shard-00001.tar').read_bytes()
    task = (f'{url}/shard-00001.tar', len(content), str(tmp_path / 'home'))
    # They end by themselves: a pool's SIGTERM meets coverage's handler, which can wait for ever.
    with ProcessPoolExecutor(3, multiprocessing.get_context('fork')) as processes:
        assert list(processes.map(_open, *zip(*[task] * 3))) == [content] * 3
    assert asked == ['/shard-00001.tar']


def test_ranks_that_start_together(web, pack, monkeypatch):
    url, _ = web
    monkeypatch.setattr(os, 'fsync', lambda file: time.sleep(0.02))
    with ThreadPoolExecutor(4) as threads:
        assert [len(data) for data in threads.map(shards, [url] * 4)] == [26] * 4


def test_a_shard_that_another_process_removes(web, pack, monkeypatch):
    url, asked = web
    content = (pack / 'shard-00001.tar').read_bytes()

    def opened_and_removed(path, mode):
        file = open(path, mode)
        path.unlink()
        return file

    monkeypatch.setattr('simclr_mm.datasets.shard_cache.open', opened_and_removed, raising=False)
    assert ShardCache(1).open(f'{url}/shard-00001.tar').read() == content


def test_shards_without_an_index(web, pack):
    url, asked = web
    data = shards(url, shards='shard-{00000..00003}.tar')
    assert len(data) == 26 and len(asked) == 4
    local = shards(pack)
    names = [name.decode() for name in data.index['name']]
    assert [data.read(row) for row in range(26)] == [
        local.read(int(name.split('.')[0])) for name in names
    ]
    assert len(shards(url, shards='shard-{00000..00003}.tar')) == 26
    assert len(asked) == 4


def test_the_cache_of_another_user(web, pack, monkeypatch):
    """Its files can be read, and their times cannot be changed."""

    def refused(*args):
        raise PermissionError(errno.EPERM, 'Operation not permitted')

    monkeypatch.setattr(os, 'utime', refused)
    content = (pack / 'shard-00001.tar').read_bytes()
    assert ShardCache(1).open(f'{web[0]}/shard-00001.tar').read() == content


def test_what_the_cache_keeps_of_shards_without_an_index_is_said(web, monkeypatch):
    said = []
    monkeypatch.setattr(tar_index, 'print_log', lambda text, **kwargs: said.append(text))
    url = web[0]
    shards(url, shards='shard-{00000..00001}.tar')
    assert not said
    shards(url, shards='shard-{00000..00001}.tar')
    assert len(said) == 1 and said[0].startswith('2 shards as they were when')
    assert 'delete that folder if the files on the web have changed' in said[0]


def test_other_schemes_through_fsspec(pack, tmp_path, monkeypatch):
    fsspec = pytest.importorskip('fsspec')
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path))
    memory = fsspec.filesystem('memory')
    for path in pack.iterdir():
        memory.pipe_file(f'/bucket/{path.name}', path.read_bytes())
    assert contents(shards('memory://bucket')) == contents(shards(pack))


def test_mistakes_are_named(web, pack, tmp_path):
    url, _ = web
    with pytest.raises(OSError, match=f'cannot fetch {url}/no/index.json .*it is there.$'):
        shards(f'{url}/no')
    with pytest.raises(OSError, match='cannot fetch .*/no.tar .*, or put a copy at'):
        ShardCache(1).open(f'{url}/no.tar')
    (pack / 'page').mkdir()
    try:
        (pack / 'page' / 'index.json').write_text('<html>')
        with pytest.raises(ValueError, match=f'{url}/page/index.json is no index of'):
            shards(f'{url}/page')
    finally:
        shutil.rmtree(pack / 'page')
    with pytest.raises(OSError, match='bytes came, its index says 5'):
        ShardCache(1).open(f'{url}/shard-00000.tar', 5)
    assert not list((tmp_path / 'home').glob('shards/*/*.tar'))
