"""End a job whose ranks wait for each other, and name the rank that they wait for."""

import atexit
import contextlib
import json
import linecache
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar

from torch.distributed import PrefixStore, TCPStore

T = TypeVar('T')

HUNG = 124  # the exit code, as of timeout(1)
TIMEOUT = 600.0  # seconds
# Collectives fail by themselves only after the watch has spoken.
MARGIN = 15.0
_ANSWER = 5.0  # seconds for the other ranks to say where they are
# What gloo and NCCL say when the process at the other end, or the link to it, has gone.
_BROKEN = re.compile(
    'Connection (closed|reset) by|Broken pipe|remote process exited|gloo.*Timed out waiting'
)
# A line that waits for a device or for other ranks.
_WAITS = re.compile(r'\b(all_gather\w*|barrier|cpu|item|synchronize|tolist|wait)\(')


class HangWatch(threading.Thread):
    """A thread that asks every second whether this rank has moved since.

    A rank that waits for others at one place for the whole time-out calls all ranks. Each
    answers through the job's store where it is. Then each prints its own place with its stack, and
    the ranks that do not wait for others or do not answer, and ends with the exit code 124. It also
    answers a rank that has lost another one and asks who is left.

    Args:
        rank: This rank.
        ranks: Ranks in the job.
        timeout: Seconds.
        name: Of this run, the same on all ranks.
        step: Says how far this rank is, in words.
    """

    _of_process: 'HangWatch | None' = None  # the last one watches

    def __init__(
        self, rank: int, ranks: int, timeout: float, name: str, step: Callable[[], str]
    ) -> None:
        super().__init__(name='hang watch', daemon=True)
        self._rank, self._ranks, self._timeout, self._step = rank, ranks, timeout, step
        self._interval = min(1.0, timeout / 10)
        self._watched = threading.get_ident()
        self._place: object = None
        self._since = time.monotonic()
        self._prefix = f'simclr_mm/hang/{name}'
        self._stopped = threading.Event()
        if HangWatch._of_process is not None:
            HangWatch._of_process.stop()
        HangWatch._of_process = self

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        try:
            store = TCPStore(
                os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), wait_for_workers=False
            )
        except RuntimeError as error:
            print(f'rank {self._rank}: nothing watches for hangs: {error}', file=sys.stderr)
            return
        store.set_timeout(timedelta(seconds=_ANSWER))
        self._store = PrefixStore(self._prefix, store)
        while not self._stopped.wait(self._interval):
            stalled = self._waited(self._stack()) > self._timeout
            if _through_store(partial(self._listen, stalled), False) or stalled:
                self._end()

    def _listen(self, stalled: bool) -> bool:
        """Say that this rank is alive or stalled, and hear whether one is stalled."""
        if self._store.check(['lost']):
            self._store.set(f'alive {self._rank}', '')
        called = self._store.check(['called'])
        if stalled and not called:
            self._store.set('called', str(self._rank))
        return called

    def _stack(self) -> traceback.StackSummary:
        frame: FrameType | None = sys._current_frames().get(self._watched)
        return traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)

    def _waited(self, stack: traceback.StackSummary) -> float:
        """Seconds for which the main thread has waited at one place for others."""
        place = (self._step(), [(each.filename, each.lineno) for each in stack])
        if place != self._place or waits(stack) is None:
            self._place, self._since = place, time.monotonic()
        return time.monotonic() - self._since

    def _end(self) -> None:
        stack = self._stack()
        mine = waits(stack)
        where = f'in {mine}' if mine else f'not waiting for others, at {_line(stack)}'
        answers = self._ask(json.dumps([f'{self._step()}, {where}', mine is not None]))
        missing = [
            f'rank {rank} ({answer[0] if answer else "no answer"})'
            for rank, answer in enumerate(answers)
            if answer is None or not answer[1]
        ]
        late = ', '.join(missing) or 'none: they wait in different calls, or a link is cut'
        print(
            f'rank {self._rank}: the ranks have waited for each other for {self._timeout:g} s '
            f'(env_cfg.dist_cfg.timeout). This rank: {self._step()}, {where}. Missing: {late}.\n'
            f'rank {self._rank} is here:\n{"".join(reversed(stack.format()))}',
            file=sys.stderr,
            flush=True,
        )
        time.sleep(2 * self._interval)  # a launcher ends all ranks as soon as one has ended
        os._exit(HUNG)

    def silent_ranks(self) -> list[int]:
        """The ranks whose watches, or rank 0 whose store, give no sign of life."""

        def silent() -> list[int]:
            left = set(range(self._ranks)) - {self._rank}
            until = time.monotonic() + _ANSWER
            self._store.set(f'alive {self._rank}', '')
            self._store.set('lost', '')
            while left and time.monotonic() < until:
                left = {rank for rank in left if not self._store.check([f'alive {rank}'])}
                time.sleep(0.1)
            return sorted(left)

        return _through_store(silent, [0])

    def _ask(self, mine: str) -> list[list | None]:
        """Where all ranks are. None: no answer."""
        answers: list[list | None] = [None] * self._ranks
        answers[self._rank] = json.loads(mine)

        def ask() -> None:
            until = time.monotonic() + _ANSWER
            self._store.set(f'rank {self._rank}', mine)
            while None in answers and time.monotonic() < until:
                for rank, answer in enumerate(answers):
                    if answer is None and self._store.check([f'rank {rank}']):
                        answers[rank] = json.loads(self._store.get(f'rank {rank}'))
                time.sleep(0.1)

        _through_store(ask, None)
        return answers


def _through_store(function: Callable[[], T], otherwise: T) -> T:
    """The result of a function that uses the store; another one if rank 0 is gone.

    If the link to it is cut, the store blocks for many minutes, in a thread that is left alone.
    """
    result = [otherwise]

    def call() -> None:
        with contextlib.suppress(AttributeError, RuntimeError):  # there is no store, or no longer
            result[0] = function()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(_ANSWER + 1)
    return result[0]


@atexit.register
def _rest() -> None:
    """Let the watch end before the interpreter does.

    A thread that comes back from the store into an interpreter that has ended aborts the process.
    """
    watch = HangWatch._of_process
    if watch is not None and watch.is_alive():
        watch.stop()
        watch.join(2.0)  # a moment, unless the link to the store is cut


def lost_ranks(error: BaseException) -> list[int] | None:
    """The ranks whose processes do not answer, if an error is a broken connection to one.

    It takes a few seconds. None: it is another error. Empty: nobody has watched the ranks.
    """
    watch = HangWatch._of_process
    if not (isinstance(error, RuntimeError) and _BROKEN.search(str(error))):
        return None
    return watch.silent_ranks() if watch else []


def waits(stack: traceback.StackSummary) -> str | None:
    """The call in which a thread waits for other ranks or a device, None if it does not.

    Args:
        stack: Innermost call first.
    """
    for each in stack[:4]:  # a collective, in the wrappers of torch.distributed
        if each.name == '_engine_run_backward':
            return 'the backward pass, which averages gradients'
        if 'distributed_c10d' in each.filename:
            return each.name
    innermost = Path(stack[0].filename)
    if innermost.parts[-2:] == ('modules', '_functions.py'):  # torch.nn's; NCCL returns at once
        return 'the statistics of SyncBatchNorm'
    found = _WAITS.search(linecache.getline(stack[0].filename, stack[0].lineno or 0))
    return f'{found[1]}, at {_line(stack)}' if found else None


def _line(stack: traceback.StackSummary) -> str:
    innermost = stack[0]
    return f'{innermost.filename}:{innermost.lineno} ({innermost.name})'
