"""Hashes of weights and files, and settings as plain data."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel


def weights_hash(model: BaseModel) -> str:
    """SHA-256 of every parameter and saved buffer with its name."""
    return state_hash(model.state_dict())


def state_hash(state: Mapping[str, torch.Tensor]) -> str:
    """:func:`weights_hash` of a state dict."""
    digest = hashlib.sha256()
    for key, value in state.items():
        digest.update(f'{key} {value.dtype} {tuple(value.shape)}'.encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def files_hash(folder: Path, paths: Iterable[str]) -> str:
    """SHA-256 of names, sizes and times of change of files; contents are not read.

    Args:
        folder: The folder.
        paths: Files, relative to it.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.encode(errors='surrogateescape'))
        if (folder / path).exists():  # a link may lead nowhere
            status = (folder / path).stat()
            digest.update(f'\0{status.st_size}\0{status.st_mtime_ns}\0'.encode())
    return digest.hexdigest()


def plain_data(settings: Any) -> Any:
    """Settings of a config as JSON has them; a class becomes its name, with its module."""

    def text(value: Any) -> str:
        is_class = isinstance(value, type)
        return f'{value.__module__}.{value.__qualname__}' if is_class else str(value)

    return json.loads(json.dumps(settings, default=text))
