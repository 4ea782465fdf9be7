"""Check a config's arguments against the classes of this package, before anything is built."""

import functools
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from simclr_mm import registry
from simclr_mm.errors import UserError
from simclr_mm.models.online_probe import OnlineProbe

# Keys that MMEngine removes before it calls the class.
_TAKEN_OUT = {'type', '_scope_', 'priority', 'constructor', 'paramwise_cfg', 'by_epoch'}
# Parts that name no type, as they have one only.
_UNTYPED: dict[str, type] = {'model.online_probe': OnlineProbe}
# Arguments that MMEngine or SimCLR adds.
_FILLED_IN = {'runner', 'dataloader', 'dataset', 'params', 'in_channels', 'samples'}
# The lowest whole numbers of settings that stand in no class of this package.
_LOWEST = {
    **{f'{phase}_dataloader.batch_size': 1 for phase in ('train', 'val', 'test')},
    **{f'{phase}_dataloader.num_workers': 0 for phase in ('train', 'val', 'test')},
    **{f'train_cfg.{name}': 1 for name in ('max_epochs', 'max_iters', 'val_interval')},
    'auto_scale_lr.base_batch_size': 1,
    'randomness.seed': 0,
}
_WORDS: dict[Any, str] = {
    float: 'a number',
    int: 'a whole number',
    numbers.Integral: 'a whole number',
    bool: 'True or False',
    str: 'a text',
    Path: 'a text',
    dict: 'a dict',
    Mapping: 'a dict',
    Callable: 'a function',
}
_LISTS = (list, tuple, Sequence)


def check_config(cfg: Config) -> None:
    """Check a whole config: numbers that stand in no class, and :func:`check_arguments`."""
    settings = dict(cfg.items())  # of a new-style config, built by this
    for place, lowest in _LOWEST.items():
        part, key = place.split('.')
        value = (settings.get(part) or {}).get(key)
        if value is None:
            continue
        kind = float if part == 'train_cfg' else int  # MMEngine takes max_iters=1e5
        whole = _fits(value, kind) and value % 1 == 0
        if not (whole and lowest <= value < 2**32):
            raise UserError(f'{place} = {value!r}: give a whole number from {lowest}')
    wrapper = settings.get('optim_wrapper')
    optimizer = wrapper.get('optimizer') if isinstance(wrapper, dict) else None
    if isinstance(optimizer, (int, float, list, tuple)):
        raise UserError(f'optim_wrapper.optimizer = {optimizer!r}: give a dict with type and lr')
    check_arguments(settings)


def check_arguments(settings: Any, place: str = '') -> None:
    """Check every part of a config that names a class of this package.

    It checks names and plain types of arguments, also of elements of lists. The classes check
    the range of numbers themselves. Classes of other libraries are not checked, but a
    library's class from which one of this package inherits is. ``place`` is the dotted key of
    the part, as in ``--cfg-options``.

    Raises:
        UserError: A class has no argument of this name, not of this type, or one is missing.
    """
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(settings, dict):
        entries = settings.items()
        kind = _class_of(settings.get('type')) or _UNTYPED.get(place)
        if kind is not None:
            _check_part(kind, settings, place)
    elif isinstance(settings, (list, tuple)):
        entries = enumerate(settings)
    for key, value in entries:
        check_arguments(value, f'{place}.{key}' if place else str(key))


def _check_part(kind: type, part: dict[str, Any], place: str) -> None:
    parameters, name = _parameters(kind), registry.type_name(part) or kind.__name__
    prefix = f'{place}.' if place else ''
    for key, value in part.items():
        if key in _TAKEN_OUT and key not in parameters:
            continue
        if key not in parameters:
            takes = ', '.join(parameters)
            raise UserError(f'{prefix}{key}: {name} has no argument {key!r}. It takes {takes}')
        if not _fits(value, parameters[key]):
            takes = ' or '.join(dict.fromkeys(_words(parameters[key])))
            raise UserError(f'{prefix}{key} = {value!r}: {name} takes {takes} here')
    for key in sorted(_required(kind) - _FILLED_IN - part.keys()):
        raise UserError(f'{prefix}{key} is missing: {name} has no default for it')


def _class_of(of: Any) -> type | None:
    """The class of this package that a ``type`` names. None for another library's class."""
    if isinstance(of, str):
        if not of.startswith('simclr_mm.'):
            return None
        found = (
            each.get(of.rpartition('.')[2])
            for each in vars(registry).values()
            if isinstance(each, Registry) and each.scope == 'simclr_mm'
        )
        of = next((each for each in found if each is not None), None)
    is_ours = (inspect.isclass(of) or inspect.isfunction(of)) and of.__module__.startswith(
        'simclr_mm.'
    )
    return of if is_ours else None


@functools.cache
def _parameters(kind: type) -> dict[str, Any]:
    """Names and annotations of all arguments, including those of base classes."""
    found: dict[str, Any] = {}
    if inspect.isfunction(kind):
        hints = typing.get_type_hints(kind)
        return {key: hints.get(key, Any) for key in inspect.signature(kind).parameters}
    fixed: set[str] = set()  # a class gives these to its base itself
    for base in kind.__mro__:
        init = vars(base).get('__init__')
        if init is None:
            continue
        signature = list(inspect.signature(init).parameters.values())[1:]
        hints = _hints(init)
        for each in signature:
            named = each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            if named and each.name not in fixed:
                found.setdefault(each.name, hints.get(each.name, Any))
        if not any(each.kind is each.VAR_KEYWORD for each in signature):
            break
        fixed |= set(vars(base).get('FIXED', ()))
    return found


def _hints(init: Callable) -> dict[str, Any]:
    """Annotations of a constructor. Libraries write int where 1e5 works too."""
    if getattr(init, '__module__', '').startswith('simclr_mm.'):
        return typing.get_type_hints(init)
    try:
        hints = typing.get_type_hints(init)
    except (NameError, TypeError):  # an annotation that exists for type checkers only
        return {}
    return {key: numbers.Integral if hint is int else hint for key, hint in hints.items()}


@functools.cache
def _required(kind: type) -> set[str]:
    """The class's own arguments without a default."""
    parameters = inspect.signature(kind).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {each.name for each in parameters if each.kind in named and each.default is each.empty}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has a plain type, a list of them, or a type that is not checked."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_fits(value, each) for each in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    if kind in _LISTS:
        return _fits_list(value, hint)
    if kind is typing.Literal:
        return value in typing.get_args(hint)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return kind not in _WORDS
    if hint is float:
        return isinstance(value, numbers.Real) and value == value  # not NaN
    if hint is int:
        return isinstance(value, numbers.Integral)
    if hint is numbers.Integral:
        return isinstance(value, numbers.Real) and math.isfinite(value) and value % 1 == 0
    if kind is dict or kind is Mapping:
        return isinstance(value, Mapping)
    if kind is Callable:
        return callable(value)
    return hint not in (str, Path) or isinstance(value, (str, os.PathLike))


def _fits_list(value: Any, hint: Any) -> bool:
    """Whether a value is a list or a tuple of fitting elements, or another sequence."""
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, '__getitem__'):
        return False
    elements = typing.get_args(hint)
    if not elements or not isinstance(value, (list, tuple)):
        return True
    if typing.get_origin(hint) is tuple and elements[-1] is not Ellipsis:
        return len(value) == len(elements) and all(map(_fits, value, elements))
    return all(_fits(each, elements[0]) for each in value)


def _words(hint: Any) -> list[str]:
    """Descriptions of the allowed types."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return [word for each in typing.get_args(hint) for word in _words(each)]
    if hint is type(None):
        return ['None']
    kind = typing.get_origin(hint) or hint
    if kind is typing.Literal:
        return [repr(value) for value in typing.get_args(hint)]
    if kind in _LISTS:
        elements = ' or '.join(dict.fromkeys(sum(map(_words, typing.get_args(hint)), [])))
        return [f'a list (each {elements})' if elements else 'a list']
    return [_WORDS.get(kind, str(getattr(kind, '__name__', kind)))]
