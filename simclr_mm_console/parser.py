"""The parser of every command line."""

import argparse
import re
import sys
from pathlib import Path
from typing import NoReturn

PROGRAM = 'simclr-mm'


def program() -> str:
    """The command as the user called it: ``train.py``, or ``simclr-mm train``."""
    name = Path(sys.argv[0]).name
    return ' '.join([PROGRAM, *sys.argv[1:2]]) if name.startswith(PROGRAM) else name


def as_called(text: str) -> str:
    """A text whose commands are scripts, where the user called a script: ``tools/pack.py``."""

    def script(found: re.Match) -> str:
        beside = sorted(folder.glob(f'{found[1].replace("-", "_")}*.py'))  # evaluate_features
        return str(beside[0]) if beside else found[0]

    folder = Path(sys.argv[0]).parent
    is_script = sys.argv[0].endswith('.py')
    return re.sub(rf'{PROGRAM} ([a-z-]+)', script, text) if is_script else text


def default_of(action: argparse.Action) -> str:
    """The default of an argument, or '' if it has none or its help says it."""
    value = action.default
    if value in (None, '', argparse.SUPPRESS) or value is False or 'default' in (action.help or ''):
        return ''
    return ' '.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


class _Form(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a docstring, and adds defaults."""

    def _get_help_string(self, action: argparse.Action) -> str:
        default = default_of(action).replace('%', '%%')
        return (action.help or '') + (f'; default: {default}' if default else '')


class Parser(argparse.ArgumentParser):
    """A parser that refuses arguments in one line."""

    def __init__(self, doc: str | None) -> None:
        super().__init__(program(), description=doc, formatter_class=_Form)

    def format_help(self) -> str:
        return as_called(super().format_help())

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: error: {message} ({self.prog} --help explains)\n')
