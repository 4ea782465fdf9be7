"""The cache holds complete files only, whatever the server does."""
import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from simclr_mm.checkpoints import CheckpointError, download, load_file
from simclr_mm.checkpoints.download import cache_path

pytestmark = pytest.mark.portable


def _checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(a=torch.arange(1000)), buffer)
    return buffer.getvalue()


BODY = _checkpoint()
NAME = f'x_20240101-{hashlib.sha256(BODY).hexdigest()[:8]}.pth'


class Server(ThreadingHTTPServer):
    """Counts requests; ``fault`` is what goes wrong with the next ones."""
    fault = None
    requests = 0


class Handler(BaseHTTPRequestHandler):

    def do_GET(self):
        self.server.requests += 1
        body = b'<html>sign in first' if self.server.fault == 'page' else BODY
        self.send_response(404 if self.server.fault == 'absent' else 200)
        self.send_header('Content-Length', len(body))
        self.end_headers()
        self.wfile.write(body[:500] if self.server.fault == 'drop' else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'home'))
    with Server(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.url = f'http://127.0.0.1:{server.server_port}'
        yield server
        server.shutdown()


def _files(tmp_path):
    return [p for p in (tmp_path / 'home').rglob('*') if p.suffix == '.pth']


def test_a_file_is_downloaded_once(server, tmp_path):
    for _ in range(2):
        file = download(f'{server.url}/a/{NAME}?token=1')
        assert torch.equal(load_file(file)['a'], torch.arange(1000))
    assert file == tmp_path / 'home' / 'checkpoints' / NAME
    assert server.requests == 1


def test_many_at_once_download_once(server):
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(download, [f'{server.url}/{NAME}'] * 8))
    assert server.requests == 1 and len(set(files)) == 1
    load_file(files[0])


def test_names_without_a_hash_do_not_collide(server):
    a, b = download(f'{server.url}/a/epoch_200.pth'), cache_path(
        'http://b/epoch_200.pth')
    assert a != b and a.name == b.name == 'epoch_200.pth'


@pytest.mark.parametrize('fault, name, message', [
    ('drop', NAME, f'the connection broke after 500 of {len(BODY)} bytes'),
    ('absent', NAME, 'Not Found'),
    ('page', NAME, 'is a web page'),
    (None, 'x_20240101-00000000.pth', 'its name says 00000000'),
])
def test_a_failed_download_leaves_nothing(server, tmp_path, fault, name, message):
    server.fault = fault
    url = f'{server.url}/{name}'
    with pytest.raises(CheckpointError, match=message) as error:
        download(url)
    text = str(error.value)
    assert url in text and f'put it at {cache_path(url)}' in text and '\n' not in text
    assert _files(tmp_path) == [] and not list(tmp_path.rglob('*.partial'))
    server.fault = None
    assert download(f'{server.url}/{NAME}').is_file()


def test_offline_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path))
    url = f'http://127.0.0.1:9/{NAME}'
    with pytest.raises(CheckpointError, match='refused') as error:
        download(url)
    target = tmp_path / 'checkpoints' / NAME
    assert str(target) in str(error.value)
    target.write_bytes(BODY)
    assert download(url) == target


def test_without_a_home_it_is_pytorchs_cache(tmp_path, monkeypatch):
    monkeypatch.delenv('SIMCLR_MM_HOME', raising=False)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert cache_path(f'http://a/{NAME}') == tmp_path / 'hub' / 'checkpoints' / NAME
