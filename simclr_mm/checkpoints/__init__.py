"""Checkpoint files: keys and bytes, no models."""
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.download import cache_home, download
from .probe_keys import PROBE, fit_probe
from .safe_load import CheckpointError, load_file, trust_checkpoints, trusting
from .schemes import install_safe_loading, read_checkpoint
from .state_dict import (backbone_state, load_state, model_state, require_finite,
                         state_problems)

__all__ = [
    'CheckpointError', 'PROBE', 'atomic_file', 'backbone_state', 'cache_home',
    'download', 'fit_probe', 'install_safe_loading', 'load_file', 'load_state',
    'model_state', 'read_checkpoint', 'require_finite', 'state_problems',
    'trust_checkpoints', 'trusting'
]
