"""Read checkpoints without running code in them."""

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile, is_zipfile

import torch

from simclr_mm.errors import CheckpointError, UserError
from simclr_mm.files.hashes import content_hash

from .claims import check_claims
from .stand_ins import finished, stand_ins

# OpenMMLab publishes `{config}_{date}-{first 8 digits of the SHA-256}.pth`. Digits
# elsewhere, as in MMEngine's `epoch_1-{hash of the pickle}.pth`, are no file hash.
_NAME_HASH = re.compile(r'_\d{8}-([0-9a-f]{8})\.pth$')
_REFUSED = re.compile(
    r'GLOBAL (.+?) (?:was not|whose)|unrecognized function (.+?)\.? |'
    r'(?:object|build) .*but got (.+)'
)
_TRUSTED = ContextVar('_TRUSTED', default=False)  # of this thread and this tool


def trust_checkpoints() -> None:
    """Let every later checkpoint of this context run code, for a tool's flag."""
    _TRUSTED.set(True)


@contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """Let the checkpoints that are read inside the block run code.

    Args:
        trust: False changes nothing.
    """
    token = _TRUSTED.set(trust or _TRUSTED.get())
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def file_problem(path: Path, expected_hash: str | None) -> str | None:
    """A problem of a checkpoint file that is visible without unpickling, or None.

    It is the end of a sentence that begins with the path. The file's SHA-256 has to begin with
    ``expected_hash``, if that is given.
    """
    if path.is_dir():
        return 'is a folder: give the .pth file of a checkpoint'
    if not path.is_file():
        return 'does not exist: check the path'
    with open(path, 'rb') as file:
        start = file.read(64).lstrip()
        if not start:
            return 'is empty: save or download it again'
        if start.startswith(b'<'):
            return 'is a web page, no checkpoint: download the file itself'
        if start.startswith(b'PK\3\4') and not _has_directory(file):
            return 'is truncated: save or download it again'
    if expected_hash is None:
        return None
    found = content_hash(path)
    if found.startswith(expected_hash):
        return None
    return (
        f'is damaged: its SHA-256 begins with {found[:8]}, its name says {expected_hash}; '
        'delete it and download it again'
    )


def _has_directory(file: BinaryIO) -> bool:
    try:
        return is_zipfile(file)
    except BadZipFile:  # its end record is invalid
        return False


def load_file(path: str | Path, map_location: Any = 'cpu') -> Any:
    """Read a checkpoint file, refusing every name outside the allow-list.

    It reads training checkpoints of mmengine and onedl-mmengine, written under numpy 1 or 2,
    and nearly everything that ``torch.load(weights_only=True)`` reads.

    Args:
        path: Of the file.
        map_location: As in ``torch.load``; None is 'cpu'.

    Returns:
        What was saved, usually a dict with ``state_dict`` and ``meta``.

    Raises:
        CheckpointError: The file is missing, broken, does not match the hash in its name, claims
            more than it holds, or asks for something that could run code. Nothing has been run.
    """
    path = Path(path).expanduser()
    try:
        expected = _NAME_HASH.search(path.name)
        problem = file_problem(path, expected[1] if expected else None)
        if problem:
            raise CheckpointError(f'{path} {problem}')
        with open(path, 'rb') as file:
            return _load(file, map_location or 'cpu', path)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be opened: {error.strerror}') from error


def _load(file: BinaryIO, map_location: Any, path: Path) -> Any:
    try:
        if _TRUSTED.get():
            return torch.load(file, map_location=map_location, weights_only=False)
        check_claims(file)
        with stand_ins():
            content = torch.load(file, map_location=map_location, weights_only=True)
        return finished(content, file.seek(0, os.SEEK_END))
    except Exception as error:  # a broken pickle can raise anything
        raise CheckpointError(_explain(error, path)) from error


def _explain(error: Exception, path: Path) -> str:
    refused = _REFUSED.search(str(error))
    if isinstance(error, pickle.UnpicklingError) and refused:
        what = next(group for group in refused.groups() if group).splitlines()[0]
        return (
            f'{path} is refused: it asks for {what}, which could run code; get a file '
            'that holds tensors only, or, if you trust its author as you trust a '
            'program, pass --trust-checkpoint (trust_checkpoint=True in Python)'
        )
    reason = re.sub(r'(?s).*WeightsUnpickler error: ', '', str(error)).strip()
    reason = reason.splitlines()[0][:200] if reason else 'it ends too early'
    if not isinstance(error, UserError):
        reason = f'{type(error).__name__}: {reason}'
    return (
        f'{path} cannot be read ({reason}): it is truncated, '
        'damaged or no PyTorch checkpoint; save or download it again'
    )
