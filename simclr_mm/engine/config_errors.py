"""Name the place in the config where a part cannot be built from its settings."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

from mmengine import registry as root
from mmengine.registry import Registry

from simclr_mm.errors import UserError
from simclr_mm.registry import type_name

_NO_TYPE = re.compile(r"'?(.*) is not in the (?:.*::)?(.+?) registry")
_NO_SETTING = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'")


@contextmanager
def building_from(cfg: Mapping[str, Any], *keys: str) -> Iterator[None]:
    """Build parts of a config; turn what a constructor refuses into one line.

    Args:
        cfg: The whole config.
        *keys: The keys of the parts; none: any.

    Raises:
        UserError: A constructor raised an error about its arguments, or a type is not
            registered. The message names the place in the config, such as
            ``train_dataloader.dataset.type``.
    """
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        parts = {key: cfg[key] for key in keys or cfg if key in cfg}
        raise UserError(_explained(error, parts, ' or '.join(keys) or 'the config')) from error


def check_type(registry: Registry, name: object) -> None:
    """Raise MMEngine's error about a name that is not registered."""
    if isinstance(name, str) and registry.get(name) is None:
        raise KeyError(f'{name} is not in the {registry.name} registry')


def _explained(error: Exception, parts: dict[str, Any], where: str) -> str:
    text = ' '.join(str(error.args[0] if error.args else error).split())
    no_type = _NO_TYPE.match(text)
    if no_type:
        name, kind = no_type.groups()
        place = _place(parts, lambda part: part.get('type', part.get('runner_type')) == name)
        return (
            f'{place or where}.type: there is no {kind} of type {name!r}.{_close(kind, name)} '
            'Correct the type, or name the module that registers it in custom_imports.'
        )
    no_setting = _NO_SETTING.search(text)
    if no_setting:
        called, setting = no_setting.groups()
        place = _place(parts, lambda part: setting in part)
        if place:
            return (
                f'{place}.{setting}: {called} has no such setting. Correct its name or '
                'leave it out.'
            )
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    place, what = where, 'cannot be used'
    for frame in frames:
        if frame.f_code.co_name == 'build_dataloader':
            place, what = _dataloader(parts, where), 'DataLoader cannot be built'
        elif frame.f_code.co_name == 'build_from_cfg':
            cfg = frame.f_locals['cfg']
            place = _place(parts, lambda part: part == cfg) or place
            what = f'{type_name(cfg)} cannot be built'
    last = frames[-1]
    return (
        f'{place}: {what}: {type(error).__name__}: {text} '
        f'({Path(last.f_code.co_filename).name}, line {last.f_lineno}). Change its settings in '
        'the config or with --cfg-options.'
    )


def _dataloader(parts: dict[str, Any], otherwise: str) -> str:
    return next((key for key in parts if key.endswith('_dataloader')), otherwise)


def _place(part: Any, fits: Callable[[dict], bool], place: str = '') -> str | None:
    """The first dict in a config that fits, as ``train_dataloader.dataset``."""
    if isinstance(part, dict) and place and fits(part):
        return place
    inside: Iterable[tuple[object, Any]] = ()
    if isinstance(part, dict):
        inside = part.items()
    elif isinstance(part, list | tuple):
        inside = enumerate(part)
    for key, value in inside:
        found = _place(value, fits, f'{place}.{key}' if place else str(key))
        if found:
            return found
    return None


def _close(kind: str, name: str) -> str:
    """A sentence with the registered names that are spelled nearly like this one."""
    names: dict[str, str] = {}
    for registry in vars(root).values():
        if isinstance(registry, Registry) and registry.name == kind:
            for each in (registry, *registry.children.values()):
                prefix = 'simclr_mm.' if each.scope == 'simclr_mm' else ''
                names.update({key: f'{prefix}{key}' for key in each.module_dict})
    close = difflib.get_close_matches(name.rpartition('.')[2], names, n=3, cutoff=0.7)
    return f' Close: {", ".join(names[each] for each in close)}.' if close else ''
