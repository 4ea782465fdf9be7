"""Hashes of what features depend on: weights, transform, images."""

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
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def transform_of(model: BaseModel) -> dict[str, Any]:
    """From a decoded uint8 BGR image to the network's input, as plain data."""
    preprocessor = model.data_preprocessor
    numbers = {
        key: value.flatten().tolist()
        for key, value in preprocessor.named_buffers()
        if key in ('mean', 'std')
    }
    settings = dict(model._config.model.get('data_preprocessor') or {})
    dataset = model._config.test_dataloader.dataset
    while 'pipeline' not in dataset:  # a LabelSubset
        dataset = dataset.dataset
    transform = dict(
        pipeline=dataset.pipeline,
        data_preprocessor={**settings, 'type': type(preprocessor).__name__, **numbers},
    )
    return json.loads(json.dumps(transform, default=str))


def transform_hash(model: BaseModel) -> str:
    """SHA-256 of :func:`transform_of`."""
    text = json.dumps(transform_of(model), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


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
