"""N logical ranks in one thread: exactly one runs at a time, always the one whose virtual clock is lowest.

A rank gives up control only inside a communication, so whatever it does there happens in order of virtual time:
links are contended for in the right order, and a run is the same every time its clocks are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from greenlet import GreenletExit, greenlet

from pipefusion.sim.clock import Clock


class SimulationError(RuntimeError):
    """A program that would hang or corrupt data on real ranks. The text names ranks, steps, layers and patches."""


class RankFailed(RuntimeError):
    """One rank's program raised; the text names the rank, the cause is chained."""


class Engine:
    """Runs one program a rank as greenlets. `current` is the rank that runs; `name` is what errors call a rank."""

    def __init__(self, clocks: Sequence[Clock], name: Callable[[int], str]):
        self.clocks, self.name = clocks, name
        self.current = 0
        self._ready: list[tuple[float, int]] = []
        self._asleep: dict[int, Callable[[], str]] = {}
        self._hub: greenlet | None = None
        self._ranks: list[greenlet] = []

    def run(self, programs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run all programs to their end; their results in rank order.

        Raises `RankFailed` when one of them raises, `SimulationError` when all that are left wait for each other.
        """
        self._hub = greenlet.getcurrent()
        results: list[Any] = [None] * len(programs)
        self._ranks = [
            greenlet(self._guarded(rank, program, results)) for rank, program in enumerate(programs)
        ]
        self._ready = [(clock.read(), rank) for rank, clock in enumerate(self.clocks)]
        heapq.heapify(self._ready)
        try:
            while self._ready:
                _, self.current = heapq.heappop(self._ready)
                self._ranks[self.current].switch()
            if self._asleep:
                reasons = "; ".join(
                    f"{self.name(rank)} {why()}" for rank, why in sorted(self._asleep.items())
                )
                raise SimulationError(f"deadlock: {reasons}")
        finally:
            for rank in self._ranks:
                if not rank.dead:
                    rank.throw(GreenletExit)
            self._ranks.clear()  # a greenlet holds its frames, and these hold tensors
            self._asleep.clear()
        return results

    def _guarded(self, rank: int, program: Callable[[], Any], results: list[Any]) -> Callable[[], None]:
        def body() -> None:
            self.clocks[rank].resume()
            try:
                results[rank] = program()
            except SimulationError:
                raise
            except Exception as error:
                raise RankFailed(f"{self.name(rank)}: {type(error).__name__}: {error}") from error
            finally:
                self.clocks[rank].pause()

        return body

    def turn(self) -> None:
        """Let every rank that is earlier in virtual time go first. Called before anything that others can see."""
        rank = self.current
        mine = (self.clocks[rank].read(), rank)
        if self._ready and self._ready[0] < mine:
            heapq.heappush(self._ready, mine)
            self._switch(rank)

    def sleep(self, why: Callable[[], str]) -> None:
        """Suspend the running rank until `wake`; `why` says what it waits for should nobody ever wake it."""
        self._asleep[self.current] = why
        self._switch(self.current)

    def wake(self, rank: int) -> None:
        """Let a suspended rank go on, at its own time."""
        if self._asleep.pop(rank, None) is not None:
            heapq.heappush(self._ready, (self.clocks[rank].read(), rank))

    def _switch(self, rank: int) -> None:
        assert self._hub is not None
        self._hub.switch()
        self.current = rank
