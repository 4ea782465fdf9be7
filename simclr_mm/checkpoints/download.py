"""Download checkpoints into a cache that holds only complete files."""

import hashlib
import re
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from simclr_mm.errors import CheckpointError
from simclr_mm.files import atomic_file, cache_home
from simclr_mm.files.http import transfer

from .safe_load import file_problem

# PyTorch's and OpenMMLab's servers put the start of the SHA-256 there. A date is no hash,
# nor is the suffix that MMEngine's `published_keys` appends to `epoch_1`: it hashes a pickle.
_HASH = re.compile(r'(?!(?:epoch|iter)_\d+-).*-(?!(?:19|20)\d{6}\.)([0-9a-f]{8})\.pth')


def cache_path(url: str) -> Path:
    """The path of a URL's file in the cache, with one folder for each URL."""
    name = Path(unquote(urlsplit(url).path)).name
    if name in ('', '..'):
        name = 'index'
    return cache_home() / 'checkpoints' / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def download(url: str) -> Path:
    """Download a file once for all processes of this machine, and return it in the cache.

    Proxies come from the environment.

    Raises:
        CheckpointError: It cannot be fetched, or the download is broken. The message says
            where to put a copy. Nothing stays in the cache.
    """
    target = cache_path(url)
    if target.is_file():  # complete, also in a cache that is read-only
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{target}.lock'):
            if not target.is_file():
                _fetch(url, target)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, 'reason', None) or error
        raise CheckpointError(
            f'cannot download {url} ({reason}): get the file another way and put it at '
            f'{target}, or name another folder with SIMCLR_MM_HOME'
        ) from error
    return target


def _fetch(url: str, target: Path) -> None:
    with atomic_file(target) as file:
        transfer(url, file, target.name)
        file.flush()
        expected = _HASH.fullmatch(target.name)
        problem = file_problem(Path(file.name), expected[1] if expected else None)
        if problem:
            raise OSError(f'what came {problem}')
