"""The parser of every command line."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

PROGRAM = 'simclr-mm'


def program() -> str:
    """The command as the user called it: ``train.py``, or ``simclr-mm train``."""
    name = Path(sys.argv[0]).name
    return ' '.join([PROGRAM, *sys.argv[1:2]]) if name.startswith(PROGRAM) else name


class Parser(argparse.ArgumentParser):
    """A parser that keeps the lines of a docstring, and refuses arguments in one line."""

    def __init__(self, doc: str | None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(program(), description=doc, formatter_class=form)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: error: {message} ({self.prog} --help explains)\n')
