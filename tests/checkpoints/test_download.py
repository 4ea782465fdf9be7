"""The cache holds complete files only, whatever the server does."""

import hashlib
import io
import multiprocessing
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
import torch

from simclr_mm.checkpoints import load_file
from simclr_mm.checkpoints.download import cache_path, download, forget
from simclr_mm.errors import CheckpointError, UserError
from simclr_mm.files import http as transfer
from simclr_mm.files.cache import cache_folder
from simclr_mm.files.storage import file_name


def _checkpoint(numbers: int = 1000) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(a=torch.arange(numbers)), buffer)
    return buffer.getvalue()


BODY = _checkpoint()
NAME = f'x_20240101-{hashlib.sha256(BODY).hexdigest()[:8]}.pth'


class Server(ThreadingHTTPServer):
    """Counts requests; ``faults`` go wrong one request after the other."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.faults, self.paths, self.ranges = [], [], []
        self.etag = '"v1"'
        self.body = BODY
        self.over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        fault = server.faults.pop(0) if server.faults else None
        server.paths.append(self.path)
        server.ranges.append(self.headers.get('Range'))
        body, start = server.body, 0
        if fault == 'page':
            body = b'<html>sign in first'
        if fault in (404, 416, 503):
            self.send_error(fault)
            return
        if self.headers.get('Range') and self.headers.get('If-Range') == server.etag:
            start = int(self.headers['Range'][len('bytes=') : -1])
            self.send_response(206)
            first = 7 if fault == 'another part' else start
            self.send_header('Content-Range', f'bytes {first}-{len(body) - 1}/{len(body)}')
        else:
            self.send_response(200)
        if server.etag:
            self.send_header('ETag', server.etag)
        if fault != 'no length':
            self.send_header('Content-Length', len(body) - start)
        self.end_headers()
        whole = fault not in ('drop', 'stall', 'no length')
        self.wfile.write(body[start:] if whole else body[start : start + 500])
        if fault == 'stall':
            server.over.wait(20)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'home'))
    monkeypatch.setattr(transfer, '_WAIT', 0)
    monkeypatch.setattr(transfer, '_TIMEOUT', 5)
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        server.url = f'http://127.0.0.1:{server.server_port}'
        yield server
        server.over.set()
        server.shutdown()


def _files(tmp_path):
    return [p for p in (tmp_path / 'home').rglob('*') if p.suffix == '.pth']


def test_a_file_is_downloaded_once(server, tmp_path):
    for _ in range(2):
        file = download(f'{server.url}/a/{NAME}?token=1')
        assert torch.equal(load_file(file)['a'], torch.arange(1000))
    assert file.name == NAME and file.parents[1] == tmp_path / 'home' / 'checkpoints'
    assert server.ranges == [None]


def _load_in_a_process(url, results):
    results.put(hashlib.sha256(download(url).read_bytes()).hexdigest())


def test_four_processes_download_once(server):
    server.faults = ['drop']
    context = multiprocessing.get_context('fork')
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_load_in_a_process, args=(f'{server.url}/{NAME}', results))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    digests = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert set(digests) == {hashlib.sha256(BODY).hexdigest()}
    assert server.ranges == [None, 'bytes=500-']  # one process fetched, and resumed


@pytest.mark.parametrize(
    'faults, ranges',
    [
        (['drop'], [None, 'bytes=500-']),
        (['drop', 'drop'], [None, 'bytes=500-', 'bytes=1000-']),
        (['stall'], [None, 'bytes=500-']),
        ([503, 'drop', 503], [None, None, 'bytes=500-', 'bytes=500-']),
        (['drop', 416], [None, 'bytes=500-', None]),
        (['drop', 'another part'], [None, 'bytes=500-', None]),
    ],
)
def test_a_broken_transfer_is_taken_up(server, monkeypatch, faults, ranges):
    monkeypatch.setattr(transfer, '_TIMEOUT', 0.3)
    server.faults = list(faults)
    file = download(f'{server.url}/{NAME}')
    assert file.read_bytes() == BODY
    assert server.ranges == ranges


@pytest.mark.parametrize('etag', [None, 'W/"v1"'])
def test_without_a_version_it_starts_again(server, etag):
    server.etag, server.faults = etag, ['drop']
    assert download(f'{server.url}/{NAME}').read_bytes() == BODY
    assert server.ranges == [None, None]


def test_a_file_that_changes_meanwhile_starts_again(server, monkeypatch):
    old = bytes(1000)
    server.body, server.faults = old, ['drop']

    def change(seconds):
        server.body, server.etag = BODY, '"v2"'

    monkeypatch.setattr(transfer.time, 'sleep', change)
    assert download(f'{server.url}/{NAME}').read_bytes() == BODY
    assert server.ranges == [None, 'bytes=500-']


def test_waits_grow(server, monkeypatch):
    waits = []
    monkeypatch.setattr(transfer, '_WAIT', 1)
    monkeypatch.setattr(transfer.time, 'sleep', waits.append)
    server.faults = [503] * 5
    with pytest.raises(CheckpointError, match='Service Unavailable'):
        download(f'{server.url}/{NAME}')
    assert waits == [1, 2, 4, 8] and len(server.paths) == 5


def test_proxies_are_honoured(server, monkeypatch):
    monkeypatch.setenv('http_proxy', server.url)
    for name in ('no_proxy', 'NO_PROXY'):
        monkeypatch.delenv(name, raising=False)
    url = f'http://weights.invalid/{NAME}'
    assert download(url).read_bytes() == BODY
    assert server.paths == [url]


def test_a_full_disk_or_a_forbidden_folder(server, tmp_path):
    (tmp_path / 'home').write_text('a file')
    with pytest.raises(CheckpointError, match='Not a directory.* SIMCLR_MM_HOME'):
        download(f'{server.url}/{NAME}')


def test_a_read_only_cache_serves_what_it_holds(server, monkeypatch):
    url = f'{server.url}/{NAME}'
    held = download(url)

    def refuse(*args):
        raise PermissionError(13, 'Permission denied', args[0])

    monkeypatch.setattr(sys.modules[download.__module__], 'FileLock', refuse)
    assert download(url) == held
    with pytest.raises(CheckpointError, match='Permission denied'):
        download(f'{server.url}/other.pth')


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'new'))
    assert cache_folder('a', 'b').is_dir()
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'file'))
    with pytest.raises(UserError, match='cannot be written .*: name another SIMCLR_MM_HOME'):
        cache_folder('a')
    monkeypatch.setattr('os.access', lambda *args: False)
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'new'))
    with pytest.raises(UserError, match='it is read-only'):
        cache_folder('a')


@pytest.mark.parametrize('name', ['epoch_200.pth', 'ckpt-20240115.pth', 'epoch_1-0badc0de.pth'])
def test_each_url_has_a_file_of_its_own(server, name):
    first = download(f'{server.url}/a/{name}')
    server.body = _checkpoint(7)
    second = download(f'{server.url}/b/{name}')
    assert first != second and first.name == second.name == name
    assert load_file(first)['a'].shape == (1000,) and load_file(second)['a'].shape == (7,)


def test_no_other_host_takes_the_place_of_a_known_model(server):
    known = 'https://download.pytorch.org/models/resnet50-0676ba61.pth'
    theirs = server.url + '/models/resnet50-0676ba61.pth'
    with pytest.raises(CheckpointError, match='its name says 0676ba61'):
        download(theirs)
    assert cache_path(theirs) != cache_path(known)


@pytest.mark.parametrize('name', ['..%2F..%2Fout.pth', '..', '%2E%2E', '.', 'a%00.pth', 'x' * 300])
def test_names_stay_in_the_cache(server, tmp_path, name):
    url = f'{server.url}/{name}'
    assert cache_path(url).parents[1] == tmp_path / 'home' / 'checkpoints'
    assert '..' not in cache_path(url).parts
    try:
        download(url)
    except CheckpointError as error:
        assert 'cannot download' in str(error)
    outside = [path for path in tmp_path.rglob('*') if 'checkpoints' not in path.parts]
    assert outside == [tmp_path / 'home']


@pytest.mark.parametrize(
    'faults, name, message, requests',
    [
        (['drop', 'drop'] * 3, NAME, f'the connection broke after 2500 of {len(BODY)}', 5),
        ([404], NAME, 'Not Found', 1),
        (['page'], NAME, 'is a web page', 1),
        (['no length'], 'epoch_1.pth', 'is truncated', 1),
        ([], 'x_20240101-00000000.pth', 'its name says 00000000', 1),
    ],
)
def test_a_failed_download_leaves_nothing(server, tmp_path, faults, name, message, requests):
    server.body = BODY + bytes(2000) if len(faults) == 6 else BODY
    message = message.replace(str(len(BODY)), str(len(server.body)))
    server.faults = list(faults)
    url = f'{server.url}/{name}'
    with pytest.raises(CheckpointError, match=message) as error:
        download(url)
    text = str(error.value)
    assert url in text and f'put it at {cache_path(url)}' in text and '\n' not in text
    assert _files(tmp_path) == [] and not list(tmp_path.rglob('*.partial'))
    assert len(server.paths) == requests
    server.faults, server.body = [], BODY
    assert download(f'{server.url}/{NAME}').is_file()


def test_a_file_of_a_storage_that_has_changed_is_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'home'))
    memory, url = fsspec.filesystem('memory'), 'memory://changes/epoch_1.pth'
    memory.pipe_file('/changes/epoch_1.pth', BODY)
    first = download(url)
    assert download(url) == first and first.read_bytes() == BODY
    memory.pipe_file('/changes/epoch_1.pth', _checkpoint(7))
    second = download(url)
    assert second.name == 'epoch_1.pth' and load_file(second)['a'].shape == (7,)
    forget(url)
    assert not second.exists() and first.exists()


def test_offline_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path))
    url = f'http://127.0.0.1:9/{NAME}'
    with pytest.raises(CheckpointError, match='refused') as error:
        download(url)
    target = cache_path(url)
    assert str(target) in str(error.value)
    target.write_bytes(BODY)
    assert download(url) == target


def test_without_a_home_it_is_pytorchs_cache(tmp_path, monkeypatch):
    monkeypatch.delenv('SIMCLR_MM_HOME', raising=False)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert cache_path(f'http://a/{NAME}').parents[1] == tmp_path / 'hub' / 'checkpoints'


@pytest.mark.parametrize(
    'location',
    [
        'a/b.pth',
        'https://host/a/b.pth?X-Credential=a%2Fb&X-Signature=SECRET.com',
        's3://bucket/b.pth',
    ],
)
def test_the_name_of_a_file_is_without_a_signature(location):
    assert file_name(location) == 'b.pth'
