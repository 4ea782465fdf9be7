"""What a run shows on the console; its log file has every line."""

import contextlib
import io
import logging
from collections.abc import Iterator
from contextvars import ContextVar

from mmengine.logging import MMLogger

# What MMEngine says to itself: its own hooks call these.
_OF_MMENGINE = '"FileClient" will be deprecated', '"HardDiskBackend" is the alias'
_quiet = ContextVar('quiet', default=False)


@contextlib.contextmanager
def quiet_console() -> Iterator[None]:
    """Runners that are built meanwhile show only warnings; their log file has every line."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def set_up(logger: MMLogger) -> None:
    """Leave out what MMEngine says to itself, and show names of files that are no UTF-8."""
    for handler in logger.handlers:
        stream = getattr(handler, 'stream', None)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
        if isinstance(handler, logging.FileHandler):
            continue
        handler.addFilter(lambda record: not record.getMessage().startswith(_OF_MMENGINE))
        if _quiet.get():
            handler.setLevel(logging.WARNING)
