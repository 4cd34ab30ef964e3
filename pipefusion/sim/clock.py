"""What a logical rank's time is made of: measured seconds in `sim`, charged ones in `plan` (see meter.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Virtual seconds of one rank since the start of the run. It runs only between `resume` and `pause`."""

    def read(self) -> float:
        """This rank's time now, all its work so far included."""
        ...

    def wait_until(self, time_s: float) -> None:
        """Nothing further happens on this rank before `time_s`."""
        ...

    def spend(self, seconds: float) -> None:
        """The rank's host is busy for so long, with nothing that the clock sees by itself."""
        ...

    def delay(self, seconds: float) -> None:
        """What the rank has computed took so much longer."""
        ...

    def resume(self) -> None:
        """The rank computes from here on."""
        ...

    def pause(self) -> None:
        """What happens from here on is not the rank's work."""
        ...


class MeasuredClock:
    """The rank's own compute seconds. Counted in CPU time of the thread, which other processes do not stretch.

    With more than one intra-op thread only the wall clock sees all of the work: pass `time.perf_counter`.
    """

    def __init__(self, now: Callable[[], float] = time.thread_time):
        self._now, self._time, self._since = now, 0.0, -1.0

    def read(self) -> float:
        return self._time + (self._now() - self._since if self._since >= 0 else 0.0)

    def wait_until(self, time_s: float) -> None:
        running = self._since >= 0
        self.pause()
        self._time = max(self._time, time_s)
        if running:
            self.resume()

    def spend(self, seconds: float) -> None:
        self._time += seconds

    delay = spend

    def resume(self) -> None:
        if self._since < 0:
            self._since = self._now()

    def pause(self) -> None:
        self._time, self._since = self.read(), -1.0


class FixedClock:
    """Every stretch of work takes what `draw()` says: virtual time that repeats exactly, whatever the machine does."""

    def __init__(self, draw: Callable[[], float]):
        self._draw, self._time, self._running = draw, 0.0, False

    def read(self) -> float:
        return self._time

    def wait_until(self, time_s: float) -> None:
        self._time = max(self._time, time_s)

    def spend(self, seconds: float) -> None:
        self._time += seconds

    delay = spend

    def resume(self) -> None:
        self._running = True

    def pause(self) -> None:
        if self._running:
            self._time += self._draw()
        self._running = False
