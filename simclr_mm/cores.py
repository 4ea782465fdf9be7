"""The cores of this machine, and how many of them other processes use."""

import multiprocessing
import os
import time
from pathlib import Path

# Documented in proc(5); only Linux has them.
_OF_ALL, _OF_ONE = '/proc/stat', '/proc/{}/stat'


def core_count() -> int:
    """Cores on which this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class OtherProcesses:
    """What other processes than this one and its workers compute, on Linux."""

    def __init__(self) -> None:
        self._since, self._seconds = time.monotonic(), _seconds_of_others()

    def elapsed(self) -> float:
        """Seconds since the last reading."""
        return time.monotonic() - self._since

    def read(self) -> float:
        """Cores that they used on average since the last reading, 0 where nobody counts."""
        now, seconds = time.monotonic(), _seconds_of_others()
        used = (seconds - self._seconds) / max(now - self._since, 1e-3)
        self._since, self._seconds = now, seconds
        return min(max(used, 0.0), core_count())


def _seconds_of_others() -> float:
    """Seconds that the cores of this process have computed for others."""
    if not os.path.exists(_OF_ALL):
        return 0.0
    ours = {f'cpu{core}' for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path(_OF_ALL).read_text().splitlines():
        name, *counts = line.split()
        if name in ours:
            user, nice, system, _, _, irq, softirq = map(int, counts[:7])
            ticks += user + nice + system + irq + softirq
    tick = os.sysconf('SC_CLK_TCK')
    # os.times() has the children that have ended.
    return ticks / tick - sum(os.times()[:4]) - sum(map(_ticks, _workers())) / tick


def _workers() -> list[int]:
    return [worker.pid for worker in multiprocessing.active_children() if worker.pid]


def _ticks(process: int) -> int:
    try:
        fields = Path(_OF_ONE.format(process)).read_text().rpartition(')')[2].split()
    except OSError:  # it has just ended
        return 0
    return int(fields[11]) + int(fields[12])
