"""User input: config files, key=value pairs and numbers, checked on entry."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from simclr_mm.apis.model_zoo import read_config_file
from simclr_mm.checkpoints.stored_config import parse_settings
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import require_local
from simclr_mm.visualization.style import format_of


def read_config(path: str, part: str = 'model') -> Config:
    """Read a config file that has this part.

    Raises:
        UserError: As :func:`read_config_file`, or the part is missing or no dict.
    """
    cfg = read_config_file(path)
    if not isinstance(cfg.get(part), dict):
        raise UserError(f'{path} has no {part} = dict(...): name the config of a training')
    return cfg


class KeyValues(DictAction):
    """``key=value`` pairs, as a dict."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for pair in values or ():
            key, equals, text = pair.partition('=')
            if not key or not equals:
                parser.error(f'{option_string} {pair}: write key=value, without spaces')
            try:
                options[key] = self._parse(text)
            except (AssertionError, RecursionError):  # MMEngine's to brackets
                parser.error(f'{option_string} {pair}: this is no list, and no dict(key=value)')
        setattr(namespace, self.dest, options)

    def _parse(self, text: str) -> Any:
        if text.startswith(('dict(', '{', '[dict(', '[{')):  # MMEngine reads no dicts
            try:
                return parse_settings(f'value = {text}')['value']
            except (SyntaxError, ValueError):
                pass  # a name such as {000..146}.tar
        if not text.lstrip('\'"').startswith(('[', '(')) and ',' not in text:
            return self._parse_int_float_bool(text.strip('\'"'))  # with its spaces
        return self._parse_iterable(text)


def out_folder(place: str | Path) -> Path:
    """A folder to write into, checked before the work whose results it is for.

    Raises:
        UserError: A file stands in its place or above it, or nothing may be written there.
    """
    return _writable(Path(place), Path(place))


def out_file(place: str | Path) -> Path:
    """A file to write, checked as :func:`out_folder`; it may be a device."""
    path = Path(place)
    if path.is_dir():
        raise UserError(f'{path} is a folder: name a file in it')
    is_device = path.exists() and not path.is_file()
    return path if is_device else _writable(path, path.parent)


def out_picture(place: str | Path) -> Path:
    """A picture to write, checked as :func:`out_file`, with an ending that has a format."""
    format_of(place)
    return out_file(place)


def _writable(path: Path, folder: Path) -> Path:
    require_local(path)
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = 'read-only' if there.is_dir() else 'a file'
        raise UserError(f'{path} cannot be written: {there} is {reason}; name another place')
    return path


def cache_folder(text: str) -> Path | None:
    """For ``type`` of ``--cache``: without a place ``$SIMCLR_MM_HOME/features``, if it is set.

    Features of ImageNet are gigabytes: nothing is kept unless a place is named.
    """
    home = os.environ.get('SIMCLR_MM_HOME')
    if text or not home:
        return Path(text) if text else None
    return Path(home).expanduser() / 'features'


_HIGHEST = 2**31 - 1  # of images, epochs, processes, and of NumPy's seeds


def at_least(lowest: int, highest: int = _HIGHEST) -> Callable[[str], int]:
    """For ``type`` of a flag: a whole number from ``lowest`` to ``highest``."""

    def whole_number(text: str) -> int:
        try:
            number = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f'{text!r} is no whole number') from error
        if number < lowest:
            raise argparse.ArgumentTypeError(f'{number} is less than {lowest}')
        if number > highest:
            raise argparse.ArgumentTypeError(f'{number} is more than {highest}')
        return number

    return whole_number
