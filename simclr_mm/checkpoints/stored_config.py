"""The config that a training run stored in its checkpoint, read as data.

MMEngine stores the text of a Python file and reads it back by running it. A checkpoint
may come from anywhere, so here the text is parsed, never run. The registries would build
a class of any dotted name, ``os.system`` too, so here only registered classes of
OpenMMLab and of this package pass. No module is imported because a file names it.
"""

import ast
import sys
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, WEIGHT_INITIALIZERS, Registry
from mmpretrain import registry as mmpretrain_registry

from simclr_mm import registry
from simclr_mm.errors import CheckpointError, UserError

_LONGEST = 1 << 20  # letters; parsing takes about 200 bytes for each
_LARGE_NUMBER = 2**60  # from here on numbers can be chosen so that sets are slow
_SCOPES = ('simclr_mm', 'mmpretrain', 'mmcv', 'mmengine')
_PACKAGES = (*_SCOPES, 'torch', 'torchvision')
# Models of other libraries, whose arguments may load and run further files.
_WRAPPERS = {'HuggingFaceClassifier', 'TIMMBackbone', 'TimmClassifier'}
_ADVICE = 'name the config with --config, or pass it to get_model'


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
        The config. A class that is named with its module, as new-style configs do it, has
        its registered name.

    Raises:
        CheckpointError: the text is too long or more than settings, or its model, its
            preprocessing or its test data name something else than a registered class
            of OpenMMLab or of this package.
    """
    if len(text) > _LONGEST:
        raise CheckpointError(
            f'{source}: the stored config has {len(text)} letters, so it is not read: {_ADVICE}'
        )
    try:
        settings = dict(map(_assigned, ast.parse(text).body))
        config = Config(settings)
    except Exception as error:  # whatever ast and Config say to wrong text
        raise CheckpointError(
            f'{source}: the stored config is no list of settings '
            f'({str(error)[:200]}), so it is not read: {_ADVICE}'
        ) from error
    if not _has_shape(settings):
        raise CheckpointError(
            f'{source}: the stored config has no model, or a test dataset that is none: {_ADVICE}'
        )
    used = [config.get(key) for key in ('model', 'data_preprocessor')]
    used.append((config.get('test_dataloader') or {}).get('dataset'))
    for settings_of_a_part in _parts(used):
        try:
            _check_names(settings_of_a_part)
        except UserError as error:
            raise CheckpointError(
                f'{source}: the stored config names {error}: if you trust it, {_ADVICE}'
            ) from error
    return config


def _assigned(statement: ast.stmt) -> tuple[str, Any]:
    """Name and value of an assignment."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, ast.literal_eval(_Dicts().visit(value))
    raise ValueError(f'line {statement.lineno} is no assignment')


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
        keys: list[ast.expr | None] = [ast.Constant(keyword.arg) for keyword in node.keywords]
        values = [self.visit(keyword.value) for keyword in node.keywords]
        return ast.copy_location(ast.Dict(keys, values), node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, int) and node.value >= _LARGE_NUMBER:
            raise ValueError('a number is too large')
        return node


def _parts(value: Any) -> Iterator[dict]:
    """Every dict in nested settings."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _parts(entry)


def _check_names(settings: dict[str, Any]) -> None:
    """Check ``type`` and ``_scope_`` of a part; give the type its registered name."""
    scope = settings.get('_scope_', 'mmpretrain')
    if scope not in _SCOPES:
        raise UserError(f'_scope_={scope!r:.100}, which is no scope of OpenMMLab or simclr_mm')
    if 'type' not in settings:
        return
    shown = f'type={settings["type"]!r:.100}'
    if registry.type_name(settings) in _WRAPPERS:
        raise UserError(
            f'{shown}, a model of another library, whose arguments may load further files'
        )
    name = _registered_name(settings['type'])
    if name is None:
        raise UserError(f'{shown}, which is no class of OpenMMLab or simclr_mm')
    settings['type'] = name


def _registered_name(of: Any) -> str | None:
    """The name of a class in a config, without its module; None if it is not allowed."""
    if not isinstance(of, str):
        return None
    place, _, name = of.rpartition('.')
    # In a module that is imported already, and that the file does not make us import.
    named = vars(sys.modules[place]).get(name) if place in sys.modules else None
    for registry_ in _registries():
        for known, entry in registry_.module_dict.items():
            is_meant = known == name if place in ('', *_SCOPES) else entry is named
            if is_meant and entry.__module__.split('.')[0] in _PACKAGES:
                if place in ('', *_SCOPES):
                    return of
                return known if registry_.parent is None else f'{registry_.scope}.{known}'
    return None


def _registries() -> Iterator[Registry]:
    """The registries of images and models."""
    yield from (MODELS, TRANSFORMS, DATASETS, WEIGHT_INITIALIZERS)
    for package in (mmpretrain_registry, registry):
        for kind in ('MODELS', 'TRANSFORMS', 'DATASETS', 'BATCH_AUGMENTS'):
            child = getattr(package, kind, None)
            if child is not None:
                child.import_from_location()
                yield child
