"""Download a URL into a file, over unreliable connections."""

import os
import socket
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, build_opener

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

_TIMEOUT = 30  # seconds without a byte before a connection counts as lost
_WAIT = 1  # seconds before the second attempt, doubled for each further one
_ATTEMPTS = 5  # waits 15 s in all: enough for a server that restarts a connection
_MAY_PASS = (408, 416, 429, 500, 502, 503, 504)  # HTTP; after 416 a new start may succeed
# Errors that a later attempt would meet again.
_FINAL = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError, str)
_BLOCK = 1 << 16  # bytes


def transfer(url: str, file: BinaryIO, name: str, quiet: bool = False) -> None:
    """Write the content of a URL into a file.

    After a lost connection it continues where it stopped if the server confirms the same
    content (Range and If-Range), and from the start otherwise. Proxies come from the
    environment (``https_proxy``, ``no_proxy``).

    Args:
        url: http or https.
        file: Open for writing, empty.
        quiet: Show no progress bar.

    Raises:
        OSError: It failed permanently, or five times.
        http.client.HTTPException: The server does not speak HTTP.
    """
    source = _Source(url)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(name, total=None)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                for size in source.read_into(file):
                    progress.update(task, completed=size, total=source.total)
                return
            except (OSError, HTTPException) as error:
                if attempt == _ATTEMPTS or not _may_pass(error):
                    raise
            time.sleep(_WAIT * 2 ** (attempt - 1))


def _may_pass(error: Exception) -> bool:
    """Whether a later attempt could succeed."""
    if isinstance(error, HTTPError):
        return error.code in _MAY_PASS
    return not isinstance(error.reason if isinstance(error, URLError) else error, _FINAL)


class _Source:
    """A URL, and the server's facts about its content."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.total: int | None = None  # bytes
        self._version: str | None = None  # strong ETag or date of the content

    def read_into(self, file: BinaryIO) -> Iterator[int]:
        """Make one attempt from the end of the file on. Yields the growing size of the file."""
        headers = {'User-Agent': 'simclr_mm'}
        if file.tell() and self._version is not None:
            headers.update({'Range': f'bytes={file.tell()}-', 'If-Range': self._version})
        request = Request(self.url, headers=headers)
        try:
            response = build_opener().open(request, timeout=_TIMEOUT)  # reads proxies now
        except HTTPError as error:
            if error.code == 416:  # nothing follows our bytes: start again
                self._version = None
            raise
        with response:
            self._start(response, file)
            while block := response.read1(_BLOCK):  # returns available bytes early
                file.write(block)
                yield file.tell()
        if self.total is not None and file.tell() != self.total:
            raise ConnectionError(f'the connection broke after {file.tell()} of {self.total} bytes')

    def _start(self, response: HTTPResponse, file: BinaryIO) -> None:
        """Move to where the response begins: the end of the file, or zero."""
        headers = response.headers
        if response.status != 206:
            file.seek(0)
            file.truncate()
        elif not headers.get('Content-Range', '').startswith(f'bytes {file.tell()}-'):
            self._version = None
            raise ConnectionError('the server sent another part of the file than asked for')
        etag = headers.get('ETag', 'W/')
        weak = etag.startswith('W/')  # says "much the same", not "the same bytes"
        self._version = headers.get('Last-Modified') if weak else etag
        length = headers.get('Content-Length')
        self.total = None if length is None else file.tell() + int(length)
        file.seek(0, os.SEEK_END)
