"""User input: config files, key=value pairs and numbers, checked on entry."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from simclr_mm.errors import MissingFileError, UserError


def read_config(path: str, part: str = 'model') -> Config:
    """Read a config file that has this part.

    Raises:
        MissingFileError: There is no such file.
        UserError: It is no config, or the part is missing or no dict.
    """
    if not Path(path).is_file():
        raise MissingFileError(f'there is no config file {path!r}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program
        reason = f'{type(error).__name__}: {error}'
        raise UserError(f'{path} cannot be read as a config: {reason}') from error
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
        for pair in values or ():
            if not pair.partition('=')[0] or '=' not in pair:
                parser.error(f'{option_string} {pair}: write key=value')
        super().__call__(parser, namespace, values, option_string)


def cache_folder(text: str) -> Path | None:
    """For ``type`` of ``--cache``: without a place ``$SIMCLR_MM_HOME/features``, if it is set.

    Features of ImageNet are gigabytes: nothing is kept unless a place is named.
    """
    home = os.environ.get('SIMCLR_MM_HOME')
    if text or not home:
        return Path(text) if text else None
    return Path(home).expanduser() / 'features'


_HIGHEST = 2**31 - 1  # of images, epochs, processes, and of NumPy's seeds


def at_least(lowest: int) -> Callable[[str], int]:
    """For ``type`` of a flag: a whole number that is not below ``lowest``."""

    def whole_number(text: str) -> int:
        try:
            number = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f'{text!r} is no whole number') from error
        if number < lowest:
            raise argparse.ArgumentTypeError(f'{number} is less than {lowest}')
        if number > _HIGHEST:
            raise argparse.ArgumentTypeError(f'{number} is more than {_HIGHEST}')
        return number

    return whole_number
