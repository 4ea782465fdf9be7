"""End a command with one line for an error that the user can fix."""

import contextvars
import errno
import functools
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from traceback import walk_tb
from urllib.error import URLError

from simclr_mm.engine.loader_workers import NOT_PASSED
from simclr_mm.errors import UserError, escaped, listed
from simclr_mm_console.parser import as_called, program

from .shared_work import first_to_fail, processes_of_torchrun

_AGAIN = 'repeat the command (train: with --resume)'
_WORKER = re.compile(
    r'DataLoader worker \(pid(?:\(s\))? ([0-9, ]+)\) (?:is killed|exited unexpectedly(?! with))'
)
_NOT_PASSED = re.compile(rf'DataLoader worker .* exited unexpectedly with exit code {NOT_PASSED}')
# What a loader's worker needs to pass images on, by words of the system's errors.
_PASSED_BY = {
    'Too many open files': 'too many open files: raise the limit, as in "ulimit -n 65536"',
    r'shared memory\(shm\)|</torch_[^>]*>.*(No space left|Cannot allocate)': (
        'shared memory (/dev/shm) is full: start the container with --shm-size=8g, or read images '
        'without workers (train_dataloader.num_workers=0, embed --workers 0)'
    ),
    'AF_UNIX path too long': 'TMPDIR is too long a path: name a shorter one',
}
_INTERRUPTED = 130  # a shell's exit code for Ctrl-C
_ADVICE = f'interrupted: {_AGAIN}; a training continues from its last checkpoint'
_NO_PERMISSION = 'name a place where you may read and write'
_REMEDIES = {
    errno.ENOENT: 'check the path',
    errno.EEXIST: 'a file is where a folder is needed: name another place',
    errno.ENOTDIR: 'a file is where a folder is needed: name another place',
    errno.EISDIR: 'name a file',
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: _NO_PERMISSION,
}


def command(main: Callable[[list[str] | None], None]) -> Callable[..., None]:
    """Make a ``main(argv)`` a command: a user's mistake ends it in one line.

    A mistake is a :class:`simclr_mm.errors.UserError`, or an error of the operating system
    about a file, such as a missing file or a full disk. The exit code is then 1. Ctrl-C also
    ends it in one line, with the exit code 130. So does the end of another process of the run, a
    rank or a loader's worker, with 1. Any other error keeps its traceback, after a line that asks
    to report it. Of several ranks, the first that fails speaks; torchrun ends the others. The
    effect of ``--trust-checkpoint`` ends with the command.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # file names may not be UTF-8
                stream.reconfigure(errors='backslashreplace')
        try:
            _refuse_empty(sys.argv[1:] if argv is None else argv)
            contextvars.copy_context().run(main, argv)
        except (Exception, KeyboardInterrupt) as error:
            if not _is_interrupt(error):
                if not first_to_fail():
                    raise SystemExit(1) from error
                words = _words_of(error)
                if words is None:
                    _ask_to_report()
                    raise
                raise SystemExit(_line(words)) from error
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # torchrun sends it a second time
            if os.environ.get('RANK', '0') == '0':
                print(_line(_ADVICE), file=sys.stderr)
            raise SystemExit(_INTERRUPTED) from error

    return run


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused an error; some libraries raise their own instead."""
    return error is not None and (
        isinstance(error, KeyboardInterrupt) or _is_interrupt(error.__context__)
    )


def _refuse_empty(arguments: Sequence[str]) -> None:
    """An empty path would be the current folder, which nobody has named."""
    for flag, argument in zip(('', *arguments), arguments):
        if argument == '':
            named = flag if flag.startswith('--') else 'an argument'
            raise UserError(f'{named} is empty: give a value, or look why the shell gave none.')


def _words_of(error: BaseException) -> str | None:
    """What a user reads of a mistake, after the rank that made it. None: it is a fault of ours."""
    words = _mistake(error)
    rank = int(os.environ['RANK']) if processes_of_torchrun() > 1 else 0
    return f'rank {rank}: {words}' if rank and words else words or _end_of_another(error)


def _mistake(error: BaseException) -> str | None:
    if isinstance(error, UserError):
        # Without the traceback that PyTorch puts before the message of a loader's worker.
        kind = type(error)
        return str(error).rpartition(f'{kind.__module__}.{kind.__qualname__}: ')[2]
    if isinstance(error, URLError):  # other libraries' downloads
        return f'a download failed ({error.reason}): put the files in its place'
    if not isinstance(error, OSError):
        return None
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f'{error.strerror}: nothing more can be written'
    if error.filename is None or error.strerror is None:
        return None
    words = error.filename, error.strerror, _REMEDIES.get(error.errno or 0)
    return ': '.join(map(str, filter(None, words)))


def _end_of_another(error: BaseException) -> str | None:
    """What to say of an error that only tells that another process of the run has ended."""
    text = str(error)
    for words, remedy in _PASSED_BY.items():
        if re.search(words, text):
            return remedy
    if _NOT_PASSED.search(f'{text} {error.__cause__}'):
        ways = ', or '.join(_PASSED_BY.values())
        return f'a loader worker cannot pass its images on, for the reason that it printed: {ways}'
    worker = _WORKER.search(text)
    calls = {frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__)}
    # Images come from a worker through its sockets, which close before PyTorch misses it.
    if worker or (isinstance(error, (ConnectionError, EOFError)) and '_try_get_data' in calls):
        return (
            f'loader worker {f"{worker[1]} " if worker else ""}was ended from outside, often '
            f'for want of memory: {_AGAIN}, perhaps with a smaller train_dataloader.num_workers'
        )
    if 'RANK' not in os.environ or os.environ.get('WORLD_SIZE') == '1':
        return None
    from simclr_mm.engine.hang_watch import lost_ranks

    ranks = lost_ranks(error)
    if ranks is None:
        return None
    names = f'rank {listed(ranks)}' if ranks else 'another rank'
    return (
        f'rank {os.environ["RANK"]} stops, because {names} has ended: see its last lines; {_AGAIN}'
    )


def _line(message: str) -> str:
    return f'{program()}: error: {as_called(escaped(" ".join(message.split())))}'


def _ask_to_report() -> None:
    print(
        f'{program()}: this is a fault of simclr_mm, not yours: please open '
        'an issue with your command and all lines that follow.',
        file=sys.stderr,
    )
