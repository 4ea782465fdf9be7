"""Fetch checkpoints by URL into a cache that holds only complete files."""

import re
import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from simclr_mm.errors import CheckpointError, UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.cache import cache_home
from simclr_mm.files.hashes import bytes_hash
from simclr_mm.files.storage import fetch, is_web, version

from .safe_load import file_problem

# PyTorch's and OpenMMLab's servers put the start of the SHA-256 there. A date is no hash,
# nor is the suffix that MMEngine's `published_keys` appends to `epoch_1`: it hashes a pickle.
_HASH = re.compile(r'(?!(?:epoch|iter)_\d+-).*-(?!(?:19|20)\d{6}\.)([0-9a-f]{8})\.pth')


def cache_path(url: str, content: str = '') -> Path:
    """The path of a URL's file in the cache, with one folder for each URL and content."""
    name = Path(unquote(urlsplit(url).path)).name
    if name in ('', '..'):
        name = 'index'
    origin = bytes_hash([f'{url}{content}'.encode()])
    return cache_home() / 'checkpoints' / origin[:16] / name


def download(url: str) -> Path:
    """Fetch a file once for all processes of this machine, and return it in the cache.

    Proxies come from the environment. A file of a storage, unlike one of the web, is fetched
    again if it has changed.

    Args:
        url: http, https, or any scheme that fsspec knows.

    Raises:
        CheckpointError: It cannot be fetched, or the download is broken. The message says
            where to put a copy. Nothing stays in the cache.
    """
    target = cache_path(url)
    if target.is_file():  # complete, also in a cache that is read-only
        return target
    try:
        if not is_web(url):
            target = cache_path(url, version(url))
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{target}.lock'):
            if not target.is_file():
                _fetch(url, target)
    except UserError as error:  # of a storage, with its own advice
        raise CheckpointError(str(error)) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, 'reason', None) or error
        raise CheckpointError(
            f'cannot download {url} ({reason}): get the file another way and put it at '
            f'{target}, or name another folder with SIMCLR_MM_HOME'
        ) from error
    return target


def forget(url: str) -> None:
    """Remove the copy of a file of a storage from the cache. Copies from the web stay."""
    if not is_web(url):
        shutil.rmtree(cache_path(url, version(url)).parent, ignore_errors=True)


def _fetch(url: str, target: Path) -> None:
    with atomic_file(target) as file:
        fetch(url, file, target.name)
        file.flush()
        expected = _HASH.fullmatch(target.name)
        problem = file_problem(Path(file.name), expected[1] if expected else None)
        if problem:
            raise OSError(f'what came {problem}')
