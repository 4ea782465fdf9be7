"""Hashes of weights, and settings as plain data."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch


def weights_hash(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of every tensor of a state dict with its name."""
    digest = hashlib.sha256()
    for key, value in state.items():
        digest.update(f'{key} {value.dtype} {tuple(value.shape)}'.encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def plain_data(settings: Any) -> Any:
    """A config's settings as JSON data. A class becomes its name, with its module."""

    def text(value: Any) -> str:
        is_class = isinstance(value, type)
        return f'{value.__module__}.{value.__qualname__}' if is_class else str(value)

    return json.loads(json.dumps(settings, default=text))
