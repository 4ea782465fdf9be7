"""The folder of caches."""

import os
from pathlib import Path

import torch


def cache_home() -> Path:
    """The cache folder: ``SIMCLR_MM_HOME``, or else PyTorch's cache."""
    return Path(os.environ.get('SIMCLR_MM_HOME') or torch.hub.get_dir()).expanduser()
