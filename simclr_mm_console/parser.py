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


class Parser(argparse.ArgumentParser):
    """A parser that keeps the lines of a docstring, and refuses arguments in one line."""

    def __init__(self, doc: str | None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(program(), description=doc, formatter_class=form)

    def format_help(self) -> str:
        return as_called(super().format_help())

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: error: {message} ({self.prog} --help explains)\n')
