"""Read the config in a training checkpoint as data.

MMEngine stores the text of a Python file and runs it to read it. A checkpoint may come
from anywhere, so this module parses the text and never runs it. The registries would
build a class of any dotted name, also ``os.system``, so only registered classes of
OpenMMLab and of this package are allowed. No module is imported because a file names it.
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

from .state_dict import meta_of

_LONGEST = 1 << 20  # characters; parsing takes about 200 bytes for each
_LARGE_NUMBER = 2**60  # larger numbers can be chosen to collide and slow sets down
_SCOPES = ('simclr_mm', 'mmpretrain', 'mmcv', 'mmengine')
_PACKAGES = (*_SCOPES, 'torch', 'torchvision')
# Models of other libraries, whose arguments may load and run further files.
_WRAPPERS = {'HuggingFaceClassifier', 'TIMMBackbone', 'TimmClassifier'}
_ADVICE = 'name the config with --config, or pass it to get_model'


def config_of(checkpoint: Any, source: str) -> Config:
    """The config in a loaded checkpoint.

    Raises:
        CheckpointError: It holds none, or :func:`stored_config` refuses it.
    """
    text = meta_of(checkpoint).get('cfg')
    if not isinstance(text, str):
        raise CheckpointError(
            f'{source} does not hold its config: name it, for example with '
            '--config simclr_resnet50 or --config my_config.py'
        )
    return stored_config(text, source)


def stored_config(text: str, source: str) -> Config:
    """Parse the config of a checkpoint, ``meta['cfg']`` as MMEngine writes it.

    A class that a new-style config names with its module gets its registered name.

    Raises:
        CheckpointError: The text is too long or more than settings, or its model, preprocessing or
            test data name something other than a registered class of OpenMMLab or of this package.
    """
    try:
        settings = parse_settings(text)
        config = Config(settings)
    except Exception as error:  # ast and Config raise errors of many types
        raise CheckpointError(
            f'{source}: the stored config is no list of settings '
            f'({str(error)[:200]}), so it is not read: {_ADVICE}'
        ) from error
    if not _has_shape(settings):
        raise CheckpointError(
            f'{source}: the stored config has no model, or an invalid test dataset: {_ADVICE}'
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


def parse_settings(text: str) -> dict[str, Any]:
    """Parse a dumped config as data, without running it.

    Raises:
        ValueError: The text is too long. ``ast`` raises other errors for text that is no
            list of assignments.
    """
    if len(text) > _LONGEST:
        raise ValueError(f'it has {len(text)} characters')
    settings = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                settings[name] = ast.literal_eval(_Dicts().visit(value))
            case _:
                raise ValueError(f'line {statement.lineno} is no assignment')
    return settings


def _has_shape(settings: dict[str, Any]) -> bool:
    """Whether the parts of a config that are read have the right types."""
    dataset: Any = settings.get('test_dataloader') or {}
    dataset = dataset.get('dataset', {}) if isinstance(dataset, dict) else None
    steps = dataset.get('pipeline', []) if isinstance(dataset, dict) else None
    return (
        isinstance(settings.get('model'), dict)
        and isinstance(steps, list)
        and all(isinstance(step, dict) and isinstance(step.get('type'), str) for step in steps)
    )


class _Dicts(ast.NodeTransformer):
    """Turns ``dict(a=1)`` and ``dict({'a.b': 1})`` into dicts for literal_eval."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        match node:
            case ast.Call(func=ast.Name('dict'), args=[ast.Dict() as inner], keywords=[]):
                return self.visit(inner)
            case ast.Call(func=ast.Name('dict'), args=[]) if all(k.arg for k in node.keywords):
                keys: list[ast.expr | None] = [ast.Constant(k.arg) for k in node.keywords]
                values = [self.visit(keyword.value) for keyword in node.keywords]
                return ast.copy_location(ast.Dict(keys, values), node)
        return node

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
    """Check ``type`` and ``_scope_`` of a part, and give the type its registered name."""
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
    """A class's name in a config, without its module. None if it is not allowed."""
    if not isinstance(of, str):
        return None
    place, _, name = of.rpartition('.')
    # Only in a module that is imported already: a file must not trigger imports.
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
