"""What a user types: config files, key=value pairs and numbers, checked where they enter."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.config import Config, DictAction

from simclr_mm.apis.model_zoo import read_config_file
from simclr_mm.errors import UserError


def read_config(path: str, part: str = 'model') -> Config:
    """Read a config file that has this part.

    Raises:
        MissingFileError: There is no such file.
        UserError: It is no config, or the part is missing or no dict.
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
        for pair in values or ():
            if not pair.partition('=')[0] or '=' not in pair:
                parser.error(f'{option_string} {pair}: write key=value')
        super().__call__(parser, namespace, values, option_string)


_HIGHEST = 2**31 - 1  # what counts images, epochs and processes, or seeds NumPy


def at_least(lowest: int) -> Callable[[str], int]:
    """For ``type`` of a flag: a whole number that is not below another, nor above 2^31 - 1."""

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
