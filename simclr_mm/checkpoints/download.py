"""Fetch checkpoints from the web into a cache that only ever holds complete files."""
import hashlib
import os
import re
import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import wrap_file

from .atomic import atomic_file
from .safe_load import CheckpointError, file_problem

_TIMEOUT = 30  # seconds without a byte before a connection counts as lost
_UNIQUE = re.compile(r'-[0-9a-f]{8,}\.')  # a hash in the name: one name, one content


def cache_path(url: str) -> Path:
    """Where the file of a URL stands once it is downloaded.

    ``SIMCLR_MM_HOME`` names the cache; without it PyTorch's is used, so that what is
    there already serves. A name without a hash says little (``epoch_200.pth``): such a
    file gets a folder named after its URL.
    """
    home = Path(os.environ.get('SIMCLR_MM_HOME') or torch.hub.get_dir()).expanduser()
    name = Path(unquote(urlsplit(url).path)).name or 'index'
    if _UNIQUE.search(name):
        return home / 'checkpoints' / name
    return home / 'checkpoints' / hashlib.sha256(url.encode()).hexdigest()[:8] / name


def download(url: str) -> Path:
    """Download a file once for all processes of this machine.

    Args:
        url: http or https; proxies are taken from the environment.

    Returns:
        The complete file in the cache.

    Raises:
        CheckpointError: it cannot be fetched, or what came is broken; the message says
            where to put a copy. Nothing stays in the cache.
    """
    target = cache_path(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{target}.lock'):
        if not target.is_file():
            try:
                _fetch(url, target)
            except (OSError, HTTPException, ValueError) as error:
                reason = getattr(error, 'reason', None) or error
                raise CheckpointError(
                    f'cannot download {url} ({reason}): get the file another way and '
                    f'put it at {target}') from error
    return target


def _fetch(url: str, target: Path) -> None:
    request = Request(url, headers={'User-Agent': 'simclr_mm'})
    with urlopen(request, timeout=_TIMEOUT) as response, atomic_file(target) as file:
        size = int(response.headers.get('Content-Length') or 0)  # bytes, 0: not told
        with wrap_file(
                response, total=size, description=target.name,
                console=Console(stderr=True)) as reader:
            shutil.copyfileobj(reader, file)
        file.flush()
        if size and file.tell() != size:
            raise OSError(f'the connection broke after {file.tell()} of {size} bytes')
        problem = file_problem(Path(file.name), target.name)
        if problem:
            raise OSError(f'what came {problem}')
