"""Take weights out of a loaded checkpoint and put them into a model, all or none."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from simclr_mm.errors import CheckpointError

from .probe_keys import fit_probe

_MAX_LISTED = 20  # keys of each kind in an error, about what a terminal shows


def model_state(checkpoint: Any, source: str) -> Mapping[str, Tensor]:
    """The state_dict in a loaded checkpoint.

    Args:
        checkpoint: A dict with the key ``state_dict``, or the state_dict itself.
        source: Name of the file, for the error.

    Returns:
        Tensors by key.

    Raises:
        CheckpointError: there is none, or it holds numbers that are not finite.
    """
    if isinstance(checkpoint, Mapping):
        state = checkpoint.get('state_dict', checkpoint)
        if (
            isinstance(state, Mapping)
            and state
            and all(
                isinstance(value, Tensor) and value.layout == torch.strided
                for value in state.values()
            )
        ):
            require_finite(state, source)
            return state
    raise CheckpointError(
        f'{source} holds no weights: expected a dict of tensors, or one under the key "state_dict"'
    )


def require_finite(state_dict: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights with which every result would be NaN.

    Args:
        state_dict: Tensors by key; other values are passed over.
        source: Name of the file, for the error.

    Raises:
        CheckpointError: a weight is NaN or infinite; the keys are listed.
    """
    spoilt = [
        str(key)
        for key, value in state_dict.items()
        if isinstance(value, Tensor) and not _is_finite(value)
    ]
    if spoilt:
        raise CheckpointError(
            f'{source} holds NaN or infinite weights in {len(spoilt)} of '
            f'{len(state_dict)} keys: {_listed(spoilt)}; its training diverged: take '
            'an earlier checkpoint'
        )


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
    """The part of a state_dict that belongs to the backbone.

    Args:
        checkpoint: As for :func:`model_state`.
        prefix: What its keys begin with; '' takes all.
        source: Name of the file, for the error.

    Returns:
        Tensors by key, without the prefix.

    Raises:
        CheckpointError: no key begins with the prefix, or a weight is not finite.
    """
    state = model_state(checkpoint, source)
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    if not found:
        starts = sorted({key.split('.')[0] for key in state})
        raise CheckpointError(
            f'{source} has no key that begins with "{prefix}", only '
            f'with {_listed(starts)}: check the prefix'
        )
    return found


def load_state(model: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a model, every key or none; an online probe may be absent.

    Args:
        model: Gets the weights.
        state_dict: Tensors by key.
        source: Name of the file, for the error.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape; all kinds are
            listed, and the model is as it was. Or weights are not finite.
    """
    require_finite(state_dict, source)
    state_dict, own = dict(state_dict), model.state_dict()
    fit_probe(state_dict, own)
    problems = state_problems(own, state_dict)
    if problems:
        raise CheckpointError(
            f'{source} does not fit {type(model).__name__}: {problems}; take the '
            'config that the checkpoint was made with'
        )
    model.load_state_dict(state_dict, strict=True)


def state_problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What keeps weights from fitting, in one line; '' if they fit."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    misshaped = [
        f'{key} {tuple(found[key].shape)} for {tuple(value.shape)}'
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    kinds = {'missing': missing, 'unexpected': unexpected, 'of another shape': misshaped}
    return '; '.join(f'{len(keys)} {kind}: {_listed(keys)}' for kind, keys in kinds.items() if keys)


def _listed(keys: list[str]) -> str:
    more = len(keys) - _MAX_LISTED
    return ', '.join(keys[:_MAX_LISTED]) + (f' and {more} more' if more > 0 else '')
