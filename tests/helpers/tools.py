"""The command-line tools, run in this process."""

import runpy
import sys

import simclr_mm_console
from helpers import ROOT


def tool(name: str, *args: object) -> None:
    """Run ``tools/NAME``, or ``simclr-mm``, with these arguments, as a user does.

    Raises:
        SystemExit: A user's mistake ended it; the code is the one line that it prints.
    """
    path = str(ROOT / 'tools' / name)
    before, sys.argv = sys.argv, [path, *map(str, args)]
    try:
        if name == 'simclr-mm':
            simclr_mm_console.main()
        else:
            runpy.run_path(path, run_name='__main__')
    except SystemExit as end:
        assert '\n' not in str(end.code)
        raise
    finally:
        sys.argv = before


def refusal(name: str, *args: object) -> str:
    """The line in which ``tools/NAME`` refuses these arguments; its exit code is 1."""
    try:
        tool(name, *args)
    except SystemExit as end:
        assert isinstance(end.code, str), end.code  # printed to stderr
        return end.code
    raise AssertionError(f'{name} took {args}')
