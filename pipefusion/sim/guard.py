"""What a rank may not do to its buffers while a transfer of them is under way, and how the simulator notices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipefusion.core.ledger import Entry, Where
from pipefusion.sim.engine import SimulationError
from pipefusion.sim.exchange import Side, place, same


@dataclass(frozen=True, eq=False, slots=True)
class Claim:
    """The addresses that one receive will write to, until it has been waited for."""

    start: int
    stop: int
    at: Where


class Guard:
    """The buffers of one rank that have something on its way."""

    def __init__(self, rank: int):
        self._rank = rank
        self._claims: dict[Claim, None] = {}

    def claim(self, out: Tensor, at: Where) -> Claim:
        """Nothing can be read from `out` until it has been received. Raises if it is being received into already."""
        mine = Claim(out.data_ptr(), out.data_ptr() + out.nbytes, at)
        for other in self._claims:
            if other.start < mine.stop and mine.start < other.stop:
                text = (
                    f"rank {self._rank} receives {place(at)} where {place(other.at)} has not been waited for"
                )
                raise SimulationError(f"overwritten buffer: {text}")
        self._claims[mine] = None
        if out.is_floating_point():
            out.fill_(torch.nan)
        return mine

    def release(self, claim: Claim) -> None:
        """What was claimed has been received."""
        del self._claims[claim]

    def check_sent(self, side: Side, entry: Entry) -> None:
        """Raises if what was sent has changed since, unless the transfer is in place."""
        if side.payload is not None and side.tensor is not None and not same(side.payload, side.tensor):
            text = f"rank {self._rank} changed what it sent in {entry.op} of {place(entry.at)} before it was done"
            raise SimulationError(f"overwritten buffer: {text}")
