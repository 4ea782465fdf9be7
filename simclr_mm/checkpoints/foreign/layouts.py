"""The key names of each library, and how to recognise the library of a checkpoint."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from simclr_mm.errors import CheckpointError

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
UNIT_RANGE = dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0])  # pixels enter in [0, 1]
# Keys that lead to the weights. VISSL has the first, plain weights the last.
_WAYS: tuple[tuple[str, ...], ...] = (
    ('classy_state_dict', 'base_model', 'model'),
    ('state_dict',),
    ('model_state_dict',),
    ('model',),
    (),
)
_WRAPPERS = re.compile(r'^(?:module\.|_orig_mod\.|model\.)+')  # DDP, compile, Lightning


class Layout(NamedTuple):
    """The key names of a library, as patterns of how a key begins."""

    name: str
    marks: tuple  # patterns; each must match some key
    encoder: str  # the encoder's keys
    head: str = r'(?!)'  # the projection head's keys; this matches nothing
    normalise: Mapping[str, Sequence[float]] = IMAGENET  # RGB in [0, 255]


# The first match counts. Facts are from each library's model definition.
LAYOUTS = (
    Layout(
        'VISSL', (r'(?:trunk\.)?_feature_blocks\.',), r'(?:trunk\.)?_feature_blocks\.', r'heads\.'
    ),
    Layout(
        'lightly',
        (r'backbone\.', r'projection_head\.'),
        r'backbone\.(?!fc\.)',
        r'projection_head\.(?:layers\.)?',
    ),
    Layout('Atanov', (r'convnet\.',), r'convnet\.(?!fc\.)', r'projection\.', UNIT_RANGE),
    Layout(
        'MoCo-like',
        (r'encoder_q\.',),
        r'encoder_q\.(?!fc\.|1\.)(?:0\.(?=\D))?',
        r'encoder_q\.(?:fc\.(?=\d)|1\.mlp\.)',
    ),
    Layout(
        'solo-learn',
        (r'(?:backbone|encoder)\.', r'projector\.', r'classifier\.'),
        r'(?:backbone|encoder)\.',
        r'projector\.',
    ),
    Layout('solo-learn', (r'backbone\.', r'projector\.'), r'backbone\.', r'projector\.'),
    Layout('solo-learn', (r'backbone\.', r'classifier\.'), r'backbone\.'),  # linear evaluation
    Layout(
        'Spijkervet',
        (r'encoder\.layer1\.', r'projector\.'),
        r'encoder\.(?!fc\.)',
        r'projector\.',
        UNIT_RANGE,
    ),
    Layout(
        'sthalles', (r'backbone\.fc\.0\.',), r'backbone\.(?!fc\.)', r'backbone\.fc\.', UNIT_RANGE
    ),
    Layout('mmpretrain', (r'backbone\.',), r'backbone\.'),
    Layout('torchvision', (r'(?:conv1|bn1)\.', r'layer1\.0\.conv1\.'), r'(?!fc\.)'),
)


def layout_of(checkpoint: Any) -> str | None:
    """Name of the layout of a loaded PyTorch checkpoint. None if it is unknown."""
    try:
        layout = recognised(weights_in(checkpoint, '')[0])
    except CheckpointError:
        return None
    return layout.name if layout else None


def weights_in(checkpoint: Any, source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights by key, with nested keys joined by dots, and the reason for each unused key."""
    for way in _WAYS:
        inner = checkpoint
        for step in way:
            inner = inner.get(step) if isinstance(inner, Mapping) else None
        tensors = _flat(inner, set()) if isinstance(inner, Mapping) else None
        if tensors:
            others = [str(key) for key in checkpoint if way and key != way[0]]
            return tensors, dict.fromkeys(others, 'no weights of the model')
    raise CheckpointError(
        f'{source} holds no weights: expected a dict of tensors, or '
        'one under "state_dict", "model" or "classy_state_dict"'
    )


def _flat(nested: Mapping, seen: set[int]) -> dict[str, Tensor] | None:
    """Tensors by joined keys. None if there is anything else, or one dict in two places."""
    flat: dict[str, Tensor] = {}
    if id(nested) in seen:
        return None
    seen.add(id(nested))
    for key, value in nested.items():
        if isinstance(value, Tensor):
            flat[str(key)] = value
            continue
        inner = _flat(value, seen) if isinstance(value, Mapping) else None
        if inner is None:
            return None
        flat.update({f'{key}.{name}': tensor for name, tensor in inner.items()})
    return flat


def bare_key(key: str) -> str:
    """A key without the prefixes of DDP, torch.compile and Lightning."""
    return _WRAPPERS.sub('', key)


def recognised(tensors: Mapping[str, Tensor]) -> Layout | None:
    """The first layout that fits, if any."""
    bare = [bare_key(key) for key in tensors]
    for layout in LAYOUTS:
        if all(any(re.match(mark, key) for key in bare) for mark in layout.marks):
            return layout
    return None
