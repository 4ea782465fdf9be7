"""Checkpoint files: keys and bytes, no models."""

from .download import download, forget
from .safe_load import load_file, trust_checkpoints, trusting
from .schemes import install_safe_loading, read_checkpoint
from .state_dict import (
    PROBE,
    backbone_state,
    fit_probe,
    has_keys,
    load_state,
    load_weights,
    meta_of,
    model_state,
    require_finite,
    state_problems,
    weights_hash,
)

__all__ = [
    'PROBE',
    'backbone_state',
    'download',
    'fit_probe',
    'forget',
    'has_keys',
    'install_safe_loading',
    'load_file',
    'load_state',
    'load_weights',
    'meta_of',
    'model_state',
    'read_checkpoint',
    'require_finite',
    'state_problems',
    'trust_checkpoints',
    'trusting',
    'weights_hash',
]
