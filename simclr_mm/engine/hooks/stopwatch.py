"""Measure the time between steps and in steps, on the device that computes."""

import time
from collections import deque
from typing import Any

import torch


class Stopwatch:
    """Adds up the waits before steps, and the steps. The first call is ``end_step``."""

    def __init__(self) -> None:
        self._gpu = torch.cuda.is_available()
        self._ended = self._begun = None
        self._steps: deque[tuple] = deque()  # end of the previous step, begin, end

    def begin_step(self) -> None:
        self._begun = self._stamp()

    def end_step(self) -> None:
        ended = self._stamp()
        if self._begun is not None:
            self._steps.append((self._ended, self._begun, ended))
        self._ended, self._begun = ended, None

    def read(self) -> tuple[float, float]:
        """Seconds of waits and of steps, for the finished steps since the last call."""
        waited = worked = 0.0
        while self._steps and (not self._gpu or self._steps[0][2].query()):
            before, begun, ended = self._steps.popleft()
            waited += self._seconds(before, begun)
            worked += self._seconds(begun, ended)
        return waited, worked

    def _stamp(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()  # in the stream, without waiting
        return event

    def _seconds(self, first: Any, second: Any) -> float:
        return first.elapsed_time(second) / 1000 if self._gpu else second - first
