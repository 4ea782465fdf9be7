"""Signals that announce the end of a machine: noted here, and kept from loader workers.

They belong to the process, so what was received is state of this module.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_OF_MACHINES = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
_before: dict[signal.Signals, object] = {}  # the handlers that listen() has replaced
_received: list[signal.Signals] = []
_since: list[float] = []  # when
_TOGETHER = 5.0  # seconds


def listen(signals: list[signal.Signals]) -> None:
    """Note the first of these signals. One that comes later ends the process at once.

    The same event may send several: systemd and Slurm signal every process, and torchrun passes
    on what it gets. So signals within five seconds count as one.
    """
    for each in signals:
        _before.setdefault(each, signal.getsignal(each))
        signal.signal(each, _note)


def received() -> signal.Signals | None:
    """The signal that has arrived since :func:`listen`."""
    return _received[0] if _received else None


def restore() -> None:
    """Give the signals back to the handlers that they had before :func:`listen`."""
    for each, handler in _before.items():
        signal.signal(each, handler)  # type: ignore[arg-type]
    _before.clear()
    _received.clear()
    _since.clear()


def ignore() -> None:
    """Let nothing disturb the end of this process: all is saved."""
    for each in {*_before, signal.SIGTERM}:  # Slurm's, once a rank has ended
        signal.signal(each, signal.SIG_IGN)
    _before.clear()


def _note(number: int, frame: object) -> None:
    if not _received:
        _received.append(signal.Signals(number))
        _since.append(time.monotonic())
    elif time.monotonic() - _since[0] > _TOGETHER:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


@contextmanager
def held_back() -> Iterator[None]:
    """Let the signals wait while workers are forked, who then start with them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_MACHINES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent_only() -> None:
    """Ignore such signals in a loader's worker, unless its parent sends SIGTERM.

    Launchers and Slurm send them to whole groups of processes. A worker that ended would make
    its parent fail before it has saved.
    """
    if hasattr(signal, 'sigwaitinfo'):  # Linux
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_MACHINES)
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    """End this worker when its parent says so, as PyTorch's own handler of SIGTERM does."""
    while True:
        sent = signal.sigwaitinfo(_OF_MACHINES)
        if sent.si_signo == signal.SIGTERM and sent.si_pid == parent:
            os._exit(0)
