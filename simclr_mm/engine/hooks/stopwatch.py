"""Time between steps and time in steps, of the device that computes them."""

import time
from collections import deque

import torch


class Stopwatch:
    """Adds up what passes from the end of a step to the next, and in the steps.

    This one is for a CPU, where steps are over when they return. The first call is
    ``end_step``.
    """

    def __init__(self) -> None:
        self._ended = None  # stamp of the last end of a step
        self._begun = None  # and of the last beginning
        self._waits: deque[tuple] = deque()  # (ended, begun), one before each step
        self._steps: deque[tuple] = deque()  # (begun, ended)

    def begin_step(self) -> None:
        self._begun = self._stamp()
        self._waits.append((self._ended, self._begun))

    def end_step(self) -> None:
        self._ended = self._stamp()
        if self._begun is not None:
            self._steps.append((self._begun, self._ended))
        self._begun = None

    def forget(self) -> None:
        """Do not count the step that has begun, nor the wait before it."""
        self._begun = None
        self._waits.pop()

    def read(self) -> tuple[int, float, float]:
        """Steps that are over and not read before, their waits and times in seconds."""
        steps, waited, worked = 0, 0.0, 0.0
        while self._waits and self._steps and self._over(self._steps[0][1]):
            waited += self._seconds(*self._waits.popleft())
            worked += self._seconds(*self._steps.popleft())
            steps += 1
        return steps, waited, worked

    def _stamp(self):
        return time.perf_counter()

    def _over(self, stamp) -> bool:
        return True

    def _seconds(self, first, second) -> float:
        return second - first


class DeviceStopwatch(Stopwatch):
    """The same by events in the stream of a GPU, which nobody waits for."""

    def _stamp(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _over(self, stamp: torch.cuda.Event) -> bool:
        return stamp.query()

    def _seconds(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        return first.elapsed_time(second) / 1000


def stopwatch() -> Stopwatch:
    """For the device that training runs on."""
    return DeviceStopwatch() if torch.cuda.is_available() else Stopwatch()
