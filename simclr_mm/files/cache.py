"""The folder of caches."""

import os
from pathlib import Path

import torch

from simclr_mm.errors import UserError


def cache_home() -> Path:
    """The cache folder: ``SIMCLR_MM_HOME``, or else PyTorch's cache."""
    return Path(os.environ.get('SIMCLR_MM_HOME') or torch.hub.get_dir()).expanduser()


def cache_folder(*names: str) -> Path:
    """A folder of the cache, created.

    Raises:
        UserError: It cannot be written.
    """
    folder = cache_home().joinpath(*names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        reason = 'it is read-only'
    except OSError as error:
        reason = str(error.strerror)
    raise UserError(f'the cache {folder} cannot be written ({reason}): name another SIMCLR_MM_HOME')
