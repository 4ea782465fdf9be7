"""Checkpoint files: keys and bytes, no models."""
from .atomic import atomic_file
from .download import download
from .safe_load import CheckpointError, load_file, trust_checkpoints, trusting
from .schemes import install_safe_loading
from .state_dict import (backbone_state, load_state, model_state, require_finite,
                         state_problems)

__all__ = [
    'CheckpointError', 'atomic_file', 'backbone_state', 'download',
    'install_safe_loading', 'load_file', 'load_state', 'model_state', 'require_finite',
    'state_problems', 'trust_checkpoints', 'trusting'
]
