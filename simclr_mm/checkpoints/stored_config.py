"""The config that a training run stored in its checkpoint, read as data.

MMEngine stores the text of a Python file and reads it back by running it. A checkpoint
may come from anywhere, so here the text is parsed, never run. Nor may what it names be
anything but a class of OpenMMLab or of this package: the registries take any dotted
name, ``os.system`` too, for a class to build.
"""

import ast
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, WEIGHT_INITIALIZERS
from mmpretrain import registry as mmpretrain_registry

from simclr_mm import registry

from . import CheckpointError

_SCOPES = ('simclr_mm', 'mmpretrain', 'mmcv', 'mmengine')
_PACKAGES = (*_SCOPES, 'torch', 'torchvision')
# Other libraries' models by name, whose arguments may load and run other files.
_WRAPPERS = {'HuggingFaceClassifier', 'TIMMBackbone', 'TimmClassifier'}


def config_of(checkpoint: Any, source: str) -> Config:
    """The config that a loaded checkpoint holds.

    Args:
        checkpoint: What the file held.
        source: Name of the file, for errors.

    Raises:
        CheckpointError: it holds none, or one that :func:`stored_config` refuses.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if not isinstance(text, str):
        raise CheckpointError(
            f'{source} does not hold the config it was trained with: name it, as '
            'in --config simclr_resnet50 or --config my_config.py'
        )
    return stored_config(text, source)


def stored_config(text: str, source: str) -> Config:
    """Read the config in a checkpoint.

    Args:
        text: ``meta['cfg']`` of a checkpoint, as MMEngine writes it.
        source: Name of the file, for errors.

    Returns:
        The config.

    Raises:
        CheckpointError: the text is more than settings, or its model, its preprocessing
            or its test data name what is no class of OpenMMLab or of this package.
    """
    advice = 'name the config with --config, or pass it to get_model'
    try:
        settings = {
            statement.targets[0].id: ast.literal_eval(_Dicts().visit(statement.value))
            for statement in ast.parse(text).body
        }
    except (
        AttributeError,
        MemoryError,
        RecursionError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointError(
            f'{source}: the stored config is no list of settings '
            f'({error}), so it is not read: {advice}'
        ) from error
    if not _has_shape(settings):
        raise CheckpointError(
            f'{source}: the stored config has no model, or a test dataset that is none: {advice}'
        )
    used = [settings.get(key) for key in ('model', 'data_preprocessor')]
    used.append((settings.get('test_dataloader') or {}).get('dataset'))
    for key, value in _names(used):
        if not _is_ours(key, value):
            raise CheckpointError(
                f'{source}: the stored config names {key}={value!r}, which is no class '
                f'of OpenMMLab or simclr_mm: if you trust it, {advice}'
            )
    return Config(settings)


def _has_shape(settings: dict[str, Any]) -> bool:
    """Whether everything that is read of a config is where it should be."""
    dataset: Any = settings.get('test_dataloader') or {}
    dataset = dataset.get('dataset', {}) if isinstance(dataset, dict) else None
    steps = dataset.get('pipeline', []) if isinstance(dataset, dict) else None
    return (
        isinstance(settings.get('model'), dict)
        and isinstance(steps, list)
        and all(isinstance(step, dict) and isinstance(step.get('type'), str) for step in steps)
    )


class _Dicts(ast.NodeTransformer):
    """Turns ``dict(a=1)`` into ``{'a': 1}``, which literal_eval takes."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        positional = node.args or any(each.arg is None for each in node.keywords)
        if getattr(node.func, 'id', None) != 'dict' or positional:
            return node
        keys = [ast.Constant(keyword.arg) for keyword in node.keywords]
        values = [self.visit(keyword.value) for keyword in node.keywords]
        return ast.copy_location(ast.Dict(keys, values), node)


def _names(value: Any) -> Iterator[tuple]:
    """Every ``type`` and ``_scope_`` in nested settings."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key in ('type', '_scope_'):
                yield key, entry
            else:
                yield from _names(entry)
    elif isinstance(value, (list, tuple, set)):
        for entry in value:
            yield from _names(entry)


def _is_ours(key: str, value: Any) -> bool:
    if key == '_scope_':
        return value in _SCOPES
    if not isinstance(value, str):
        return False
    scope, _, name = value.rpartition('.')
    if (scope and scope not in _SCOPES) or name in _WRAPPERS:
        return False
    return any(entry.__module__.split('.')[0] in _PACKAGES for entry in _registered(name))


def _registered(name: str) -> Iterator[type]:
    """The classes of this name in the registries of images and models."""
    for root in (MODELS, TRANSFORMS, DATASETS, WEIGHT_INITIALIZERS):
        yield from filter(None, [root.module_dict.get(name)])
    for package in (mmpretrain_registry, registry):
        for kind in ('MODELS', 'TRANSFORMS', 'DATASETS', 'BATCH_AUGMENTS'):
            child = getattr(package, kind, None)
            if child is not None:
                child.import_from_location()
                yield from filter(None, [child.module_dict.get(name)])
