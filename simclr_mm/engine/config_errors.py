"""Name the place in the config where a part cannot be built from its settings."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from simclr_mm.errors import UserError
from simclr_mm.registry import type_name


@contextmanager
def building_from(cfg: Config | dict) -> Iterator[None]:
    """Turn a library's error about a part of a config into one line.

    It is such an error if the traceback passes through a function named ``build_...`` that
    takes a part of the config, and ends outside this package. Errors that this package
    raises itself are UserErrors or bugs, and pass.

    Raises:
        UserError: The message names the place in the config, such as
            ``train_dataloader.dataset.type``.
    """
    try:
        yield
    except UserError:
        raise
    except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        frames = [frame for frame, _ in walk_tb(error.__traceback__)]
        place, part = _part_being_built(frames, dict(cfg.items()))
        if not place or frames[-1].f_globals['__name__'].startswith('simclr_mm.'):
            raise
        registries = [
            value for value in frames[-1].f_locals.values() if isinstance(value, Registry)
        ]
        if registries:  # the error of MMEngine's registry itself
            check_type(registries[0], part.get('type'), f'{place}.type')
        text = ' '.join(str(error.args[0] if error.args else error).split())
        file, line = frames[-1].f_code.co_filename, frames[-1].f_lineno
        raise UserError(
            f'{place}: {type_name(part) or "it"} cannot be built: {type(error).__name__}: {text} '
            f'({Path(file).name}, line {line}). Change its settings in the config or with '
            '--cfg-options.'
        ) from error


def check_type(registry: Registry, name: object, key: str) -> None:
    """Refuse a name that is not registered, and say which key of the config gives it."""
    if not isinstance(name, str):
        return
    with registry.switch_scope_and_registry(None) as scoped:  # where MMEngine looks first
        found = bool(name) and scoped.get(name) is not None
    if not found:
        raise UserError(
            f'{key}: there is no {registry.name} of type {name!r}.{_close(registry, name)} '
            'Correct the type, or name the module that registers it in custom_imports.'
        )


def _part_being_built(frames: list[FrameType], cfg: dict[str, Any]) -> tuple[str, dict]:
    """The innermost part of the config that a ``build_...`` function takes, and its place."""
    for frame in reversed(frames):
        if not frame.f_code.co_name.startswith('build_'):
            continue
        for argument in frame.f_code.co_varnames[: frame.f_code.co_argcount]:
            value = frame.f_locals[argument]
            if isinstance(value, dict) and value and (place := _place(cfg, value)):
                return place, value
    return '', {}


def _place(part: Any, wanted: dict, place: str = '') -> str | None:
    """Where a config holds a dict, to which MMEngine may have added keys."""
    inside: Iterable[tuple[object, Any]] = ()
    if isinstance(part, dict):
        if part == wanted or ('type' in part and {**wanted, **part} == wanted):
            return place
        inside = part.items()
    elif isinstance(part, list | tuple):
        inside = enumerate(part)
    for key, value in inside:
        found = _place(value, wanted, f'{place}.{key}' if place else str(key))
        if found:
            return found
    return None


def _close(registry: Registry, name: str) -> str:
    """A sentence with the registered names that are spelled nearly like this one."""
    names: dict[str, str] = {}
    top = registry.parent or registry
    for each in (top, *top.children.values()):
        prefix = 'simclr_mm.' if each.scope == 'simclr_mm' else ''
        names.update({key: f'{prefix}{key}' for key in each.module_dict})
    close = difflib.get_close_matches(name.rpartition('.')[2], names, n=3, cutoff=0.7)
    return f' Close: {", ".join(names[each] for each in close)}.' if close else ''
