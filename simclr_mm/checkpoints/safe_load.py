"""Read checkpoints without running code that they carry.

A checkpoint is a pickle, and a pickle may name any function to be called. Training
checkpoints of MMEngine need a few names beyond PyTorch's own; they are listed here, and
everything else is refused.
"""
import hashlib
import pickle
import re
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Callable, List, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

_STATISTICS = ('min', 'max', 'current', 'mean')
# OpenMMLab publishes `{config}_{date}-{first 8 digits of the SHA-256}.pth`. Digits
# elsewhere, as in MMEngine's `epoch_1-{hash of the pickle}.pth`, are no file hash.
_NAME_HASH = re.compile(r'_\d{8}-([0-9a-f]{8})\.pth$')
_REFUSED = re.compile(r'GLOBAL (.+?) (?:was not|whose)|unrecognized function (.+?)\.? ')
_LOCK = threading.Lock()  # PyTorch's allow-list belongs to the process


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; one line says which, why, and what to do."""


def _statistic(owner: Any, name: Any) -> Callable:
    """Stand in for ``builtins.getattr``, which MMEngine's own files ask for.

    A HistoryBuffer pickles its table of statistics, hence ``getattr(HistoryBuffer,
    'mean')``. The real getattr would lead from there to ``__globals__`` and to code.
    """
    if owner is HistoryBuffer and isinstance(name, str) and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    owner_name = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    raise pickle.UnpicklingError(
        f'GLOBAL getattr({owner_name}, {name!r}) was not allowed')


def _allowed_names() -> List[Union[type, Tuple[Callable, str]]]:
    reconstruct = np.zeros(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    names: list = [(_statistic, 'builtins.getattr'), HistoryBuffer, np.ndarray,
                   np.dtype]
    for core in ('core', '_core'):  # numpy 1 and numpy 2
        names.append((reconstruct, f'numpy.{core}.multiarray._reconstruct'))
        names.append((scalar, f'numpy.{core}.multiarray.scalar'))
    # Classes of numbers, booleans and strings; no objects, no records.
    codes = '?' + np.typecodes['AllInteger'] + np.typecodes['AllFloat'] + 'SU'
    return names + sorted({type(np.dtype(code)) for code in codes}, key=str)


@contextmanager
def _allow_list():
    """Let torch.load know our names, and leave the process as it was.

    What the user has allowed stays allowed, but for another ``builtins.getattr``. A
    loaded HistoryBuffer writes the statistics it brought into its class: undone.
    """
    with _LOCK:
        before = get_safe_globals()
        HistoryBuffer()  # the first one registers the four statistics
        statistics = dict(HistoryBuffer._statistics_methods)
        clear_safe_globals()
        add_safe_globals([
            entry for entry in before if entry is not getattr
            and not (isinstance(entry, tuple) and entry[1] == 'builtins.getattr')
        ])
        add_safe_globals(_allowed_names())
        try:
            yield
        finally:
            clear_safe_globals()
            add_safe_globals(before)
            HistoryBuffer._statistics_methods.clear()
            HistoryBuffer._statistics_methods.update(statistics)


def file_problem(path: Path, name: str) -> Optional[str]:
    """What is wrong with a checkpoint file, as far as it shows without unpickling.

    Args:
        path: The file.
        name: The name it has or shall get, which may hold a hash.

    Returns:
        The end of a sentence that begins with the path; None if nothing is wrong.
    """
    if path.is_dir():
        return 'is a directory: give the .pth file in it'
    if not path.is_file():
        return 'does not exist: check the path'
    with open(path, 'rb') as file:
        start = file.read(64).lstrip()
        if not start:
            return 'is empty: save or download it again'
        if start.startswith(b'<'):
            return 'is a web page, no checkpoint: download the file itself'
        expected = _NAME_HASH.search(name)
        if expected is None:
            return None
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest().startswith(expected[1]):
        return None
    return (
        f'is damaged: its SHA-256 begins with {digest.hexdigest()[:8]}, its name says '
        f'{expected[1]}; delete it and download it again')


def load_file(file: Union[str, Path, BinaryIO],
              map_location: Any = 'cpu',
              name: Optional[str] = None) -> Any:
    """Read a checkpoint file, refusing every name outside the allow-list.

    Training checkpoints of mmengine and onedl-mmengine, written under numpy 1 or 2,
    pass; so does everything that ``torch.load(weights_only=True)`` reads.

    Args:
        file: A path, or an open file or buffer at its start.
        map_location: As in ``torch.load``; None is 'cpu'.
        name: What to call the file in errors. Default: its path.

    Returns:
        What was saved, usually a dict with ``state_dict`` and ``meta``.

    Raises:
        CheckpointError: the file is missing, broken, not what its name says, or its
            pickle asks for something that could run code; nothing has been run.
    """
    if isinstance(file, (str, Path)):
        file = Path(file).expanduser()
        name = name or str(file)
        problem = file_problem(file, file.name)
        if problem:
            raise CheckpointError(f'{name} {problem}')
    name = name or 'the checkpoint'
    try:
        with _allow_list():
            return torch.load(
                file,
                map_location='cpu' if map_location is None else map_location,
                weights_only=True)
    except Exception as error:  # a broken pickle can raise anything
        raise CheckpointError(_explain(error, name)) from error


def _explain(error: Exception, name: str) -> str:
    refused = _REFUSED.search(str(error))
    if isinstance(error, pickle.UnpicklingError) and refused:
        return (
            f'{name} is refused: it asks for {refused[1] or refused[2]}, which could '
            'run code; get a file that holds tensors only, or, for a class of your own,'
            ' allow it with torch.serialization.add_safe_globals')
    reason = re.sub(r'(?s).*WeightsUnpickler error: ', '', str(error)).strip()
    reason = reason.splitlines()[0][:200] if reason else 'it ends too early'
    return (
        f'{name} cannot be read ({type(error).__name__}: {reason}): it is truncated '
        'or no PyTorch checkpoint; save or download it again')
