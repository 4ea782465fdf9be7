"""Where what is fetched or computed once is kept."""

import os
from pathlib import Path

import torch


def cache_home() -> Path:
    """The folder of everything that is kept between runs.

    ``SIMCLR_MM_HOME`` names it. Without it, it is PyTorch's cache.
    """
    return Path(os.environ.get('SIMCLR_MM_HOME') or torch.hub.get_dir()).expanduser()
