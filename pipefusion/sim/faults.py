"""What can go wrong or merely differently: delays, slow and stalled ranks, lost messages, killed ranks, from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


class Killed(RuntimeError):
    """A rank was ended on purpose."""


@dataclass(frozen=True)
class Kill:
    """End `rank` at its communication number `call`."""

    rank: int
    call: int


@dataclass(frozen=True)
class Drop:
    """Lose message number `number` (from 0) from rank `source` to rank `to`."""

    source: int
    to: int
    number: int = 0


@dataclass
class Faults:
    """Without a seed nothing is disturbed. With one, every message is late by up to `late_s`.

    A rank computes `1..slow` times slower than others, one stretch of compute in `stall_every` takes `late_s` more, and
    a send may complete before anybody receives (as libraries with buffers allow) or only then: either is legal.
    """

    seed: int | None = None
    late_s: float = 1e-2
    slow: float = 8.0
    stall_every: int = 20
    kill: Kill | None = None
    drop: Drop | None = None
    _random: random.Random = field(default_factory=random.Random, repr=False)
    _messages: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def delay_s(self) -> float:
        """Extra seconds of a transfer: spread over orders of magnitude, so that channels overtake each other."""
        if self.seed is None:
            return 0.0
        return self.late_s * 10.0 ** self._random.uniform(-5, 0)

    def eager(self) -> bool:
        """Whether a send is done before its receive is posted."""
        return self.seed is not None and self._random.random() < 0.5

    def drops(self, source: int, to: int) -> bool:
        """Whether this message is lost. Called once for each message of a channel, in order."""
        number = self._messages.get((source, to), 0)
        self._messages[(source, to)] = number + 1
        return self.drop is not None and (self.drop.source, self.drop.to, self.drop.number) == (
            source,
            to,
            number,
        )

    def check_alive(self, rank: int, call: int) -> None:
        """Raises `Killed` when this rank's time has come."""
        if self.kill is not None and self.kill.rank == rank and call >= self.kill.call:
            raise Killed(f"killed at communication {call}")

    def pace(self, rank: int) -> Callable[[], float]:
        """For a `FixedClock`: seconds of each stretch of compute of a rank, from the seed."""
        own = random.Random(f"{self.seed}-{rank}")
        factor = own.uniform(1.0, self.slow)

        def draw() -> float:
            stall = self.late_s if own.random() < 1 / self.stall_every else 0.0
            return factor * own.uniform(1e-6, 1e-4) + stall

        return draw
