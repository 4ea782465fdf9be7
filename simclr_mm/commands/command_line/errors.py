"""Run a tool so that a user's mistake ends it in one line."""
import contextvars
import sys
import traceback
from pathlib import Path
from typing import Callable

from simclr_mm.checkpoints import CheckpointError

_PACKAGE = Path(__file__).resolve().parents[2]
_TOOLS = _PACKAGE.joinpath('.mim', 'tools').resolve()


def run(main: Callable[[], None]) -> None:
    """Run a tool: a user's mistake ends it in one line and with exit code 1.

    A mistake is a CheckpointError or a missing file, or a ValueError, OSError or
    ImportError that this package or a tool raised itself. Any other error is a fault of
    the program and keeps its traceback. What ``--trust-checkpoint`` allows ends with
    the tool.
    """
    try:
        contextvars.copy_context().run(main)
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        mistakes = CheckpointError, FileNotFoundError
        if not isinstance(error, mistakes) and not _is_ours(error):
            raise
        message = ' '.join(str(error).split())
        raise SystemExit(f'{Path(sys.argv[0]).name}: error: {message}') from error


def _is_ours(error: Exception) -> bool:
    """Whether a ``raise`` of this package or its tools made an error."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    parents = Path(frame.filename).resolve().parents
    return (_PACKAGE in parents or _TOOLS in parents) and frame.line.startswith('raise')
