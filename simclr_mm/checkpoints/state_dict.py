"""Extract weights from a loaded checkpoint and load them into a model, all or none."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from simclr_mm.errors import CheckpointError, listed

from .safe_load import load_file

# Keys under which libraries keep a model's weights.
_WEIGHTS = ('state_dict', 'ema_state_dict', 'model_state_dict', 'model')
PROBE = 'probe.'  # prefix of the online probe's keys
_MAX_LISTED = 20  # keys of each kind in an error, about one screen
_LONGEST = 200  # characters of a key in an error


def model_state(checkpoint: Any, source: str) -> Mapping[str, Tensor]:
    """The state_dict in a checkpoint: under the key ``state_dict``, or the checkpoint itself.

    Raises:
        CheckpointError: There is none.
    """
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    if isinstance(state, Mapping) and state and all(isinstance(key, str) for key in state):
        if all(isinstance(w, Tensor) and w.layout == torch.strided for w in state.values()):
            return state
    raise CheckpointError(
        f'{source} holds no weights: expected a dict of tensors, or one under the key "state_dict"'
    )


def weights_hash(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of every tensor of a state dict with its name."""
    digest = hashlib.sha256()
    for key, value in state.items():
        digest.update(f'{key} {value.dtype} {tuple(value.shape)}'.encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def meta_of(checkpoint: Any) -> dict[str, Any]:
    """The ``meta`` of a loaded checkpoint, as MMEngine writes it. Empty if there is none."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    return meta if isinstance(meta, dict) else {}


def has_keys(checkpoint: Any, expected: Iterable[str]) -> bool:
    """Whether a file has a model's own keys, apart from an online probe on either side."""
    try:
        found = model_state(checkpoint, '')
    except CheckpointError:
        return False
    return all(key.startswith(PROBE) for key in set(expected) ^ found.keys())


def load_weights(file: str | Path, map_location: Any = 'cpu') -> Any:
    """Read a checkpoint file whose weights will be used.

    Raises:
        CheckpointError: As :func:`load_file`, or a weight is NaN or infinite.
    """
    checkpoint = load_file(file, map_location)
    if isinstance(checkpoint, dict):
        weights = {key: checkpoint[key] for key in _WEIGHTS if key in checkpoint}
        require_finite(weights or checkpoint, str(file))
    return checkpoint


def require_finite(weights: Mapping[str, Any], source: str) -> None:
    """Refuse weights with NaN or infinity.

    Args:
        weights: Tensors by key, or dicts of tensors. Other values are ignored.

    Raises:
        CheckpointError: A weight is NaN or infinite. The message lists the keys.
    """
    tensors = list(_tensors(weights, set()))
    spoilt = [key for key, value in tensors if not _is_finite(value)]
    if spoilt:
        raise CheckpointError(
            f'{source} holds NaN or infinite weights in {len(spoilt)} of {len(tensors)} keys: '
            f'{_listed(spoilt)}; its training diverged: take an earlier checkpoint'
        )


def _tensors(weights: Mapping[str, Any], seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Tensors in nested dicts, by their innermost key. Each dict is visited once."""
    if id(weights) in seen:
        return
    seen.add(id(weights))
    for key, value in weights.items():
        if isinstance(value, Tensor):
            yield str(key), value
        elif isinstance(value, Mapping):
            yield from _tensors(value, seen)


def _is_finite(value: Tensor) -> bool:
    inexact = value.is_floating_point() or value.is_complex()
    if value.is_meta or value.layout != torch.strided or not inexact:
        return True
    if value.is_floating_point() and value.element_size() == 1:  # float8
        value = value.float()
    return bool(torch.isfinite(value).all())


def backbone_state(
    checkpoint: Any, prefix: str = 'backbone.', source: str = 'the checkpoint'
) -> dict[str, Tensor]:
    """The backbone's tensors in a checkpoint, by key without the prefix. '' takes all keys.

    Raises:
        CheckpointError: No key begins with the prefix.
    """
    state = model_state(checkpoint, source)
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    if not found:
        starts = sorted({key.split('.')[0] for key in state})
        raise CheckpointError(
            f'{source} has no key that begins with "{prefix}", only '
            f'with {_listed(starts)}: check the prefix, or bring weights of another library in '
            'with simclr-mm convert'
        )
    return found


def load_state(model: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a model, every key or none. An online probe may be absent.

    Raises:
        CheckpointError: Keys are missing, unexpected or of another shape. The message
            lists them, and the model is unchanged.
    """
    state_dict, own = dict(state_dict), model.state_dict()
    fit_probe(state_dict, own)
    problems = state_problems(own, state_dict)
    if problems:
        raise CheckpointError(
            f'{source} does not fit {type(model).__name__}: {problems}; take the '
            'config that the checkpoint was made with'
        )
    model.load_state_dict(state_dict, strict=True)


def fit_probe(state: dict[str, Tensor], expected: Mapping[str, Tensor], prefix: str = '') -> None:
    """Allow an online probe in only one of checkpoint and model, with a log line.

    If both or neither have a probe, nothing is done, and its keys have to fit like all others.

    Args:
        state: The state to load, changed in place. A probe that the model lacks is
            removed. A probe that only the model has is copied from the model.
        expected: The model's own state_dict.
        prefix: Prefix of all keys, in front of the probe's own prefix.
    """
    found = [key for key in state if key.startswith(prefix + PROBE)]
    wanted = [key for key in expected if key.startswith(prefix + PROBE)]
    if bool(found) == bool(wanted):
        return
    if found:
        line = f'the model has no online probe: left out {", ".join(found)} of the checkpoint'
    else:
        line = (
            f'the checkpoint has no online probe: {", ".join(wanted)} of the model stay as they are'
        )
    print_log(line, logger='current')
    for key in found:
        del state[key]
    state.update({key: expected[key] for key in wanted})


def state_problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Why weights do not fit, in one line; '' if they fit."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    misshaped = [
        f'{key} {tuple(found[key].shape)} for {tuple(value.shape)}'
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    kinds = {'missing': missing, 'unexpected': unexpected, 'of another shape': misshaped}
    return '; '.join(f'{len(keys)} {kind}: {_listed(keys)}' for kind, keys in kinds.items() if keys)


def left_out(checkpoint: Any, source: str) -> dict[str, str]:
    """The parts of a checkpoint that an export of the backbone leaves out.

    By name: ``neck``, ``head`` and other parts of the model with their counts of tensors and
    numbers; ``optimizer`` and the rest of the file.
    """
    state = model_state(checkpoint, source)
    parts: dict[str, list] = {}
    for key, value in state.items():
        if not key.startswith('backbone.'):
            parts.setdefault(key.split('.')[0], []).append(value.numel())
    counts = {
        part: f'{len(sizes)} tensors, {sum(sizes):,} numbers' for part, sizes in parts.items()
    }
    if 'state_dict' in checkpoint:
        others = [key for key in checkpoint if key not in ('state_dict', 'meta')]
        counts.update({key: 'state of the training run' for key in others})
    return counts


def _listed(keys: list[str]) -> str:
    return listed((str(key)[:_LONGEST] for key in keys), _MAX_LISTED)
