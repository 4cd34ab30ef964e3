"""Which send meets which receive, who takes part in which collective, and everything that can be wrong with that."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipefusion.core.ledger import Where
from pipefusion.sim.engine import Engine, SimulationError
from pipefusion.sim.faults import Faults
from pipefusion.sim.network import Network, Transit


def place(at: Where) -> str:
    """`step 3 layer 2 patch 1`, without the coordinates that do not apply."""
    named = zip(("step", "layer", "patch", "micro-batch"), at, strict=True)
    return " ".join(f"{name} {value}" for name, value in named if value >= 0) or "no step"


def check_out(rank: int, out: Tensor, shape: tuple[int, ...], at: Where) -> None:
    """Raise SimulationError unless `out` has room for what a collective delivers."""
    if tuple(out.shape) != shape or not out.is_contiguous():
        text = f"rank {rank} gathers into {list(out.shape)} where {list(shape)} arrives ({place(at)})"
        raise SimulationError(f"mismatched shape: {text}")


@dataclass(slots=True)
class Side:
    """One rank's part in a transfer: what it posted, when, and a copy of what it sends (None on `meta`).

    `tensor` is the rank's own until it has waited, and then let go: the others may need this part for longer.
    """

    rank: int
    tensor: Tensor | None
    at: Where
    time_s: float
    payload: Tensor | None
    shape: torch.Size
    dtype: torch.dtype
    bytes: int


@dataclass
class Transfer:
    """A message or a collective. `done` per rank is when its tensors may be used; absent while that is open.

    `transit` is what the links made of it; None where it never was on any.
    """

    op: str
    ranks: tuple[int, ...]
    sides: dict[int, Side] = field(default_factory=dict)
    done: dict[int, float] = field(default_factory=dict)
    asleep: list[int] = field(default_factory=list)
    transit: Transit | None = None

    def waiting(self, rank: int) -> str:
        """What a rank waits for, and for whom."""
        at = place(self.sides[rank].at)
        if self.op == "message":
            sender, receiver = self.ranks
            what = f"send to rank {receiver}" if rank == sender else f"receive from rank {sender}"
            other = receiver if rank == sender else sender
            came = "was lost" if other in self.sides else f"rank {other} has not posted it"
            return f"waits to {what} ({at}; {came})"
        absent = ", ".join(str(other) for other in self.ranks if other not in self.sides)
        return f"waits in {self.op} ({at}; not there: {absent or 'nobody, it was lost'})"


def describe(side: Side) -> str:
    """What a rank posted: shape, dtype and place."""
    return f"{list(side.shape)} {str(side.dtype).removeprefix('torch.')} ({place(side.at)})"


def mismatch(one: Side, other: Side) -> str | None:
    """Whether two sides of a transfer cannot belong together: by `shape` (or dtype), or by `order`."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return "shape"
    return "order" if one.at != other.at else None


class Exchange:
    """All transfers of a simulation. Transfers of a channel, and of a group, match in the order they are posted."""

    def __init__(self, engine: Engine, network: Network, faults: Faults):
        self.engine, self.network, self.faults = engine, network, faults
        self._channels: dict[tuple[tuple[str, int], int, int], deque[Transfer]] = {}
        self._groups: dict[tuple[str, tuple[int, ...]], deque[Transfer]] = {}

    def message(self, way: tuple[str, int], source: int, to: int, side: Side) -> Transfer:
        """Post one end of a message; `way` is its axis and tag."""
        queue = self._channels.setdefault((way, source, to), deque())
        first = next((transfer for transfer in queue if side.rank not in transfer.sides), None)
        if first is None:
            first = Transfer("message", (source, to))
            queue.append(first)
        first.sides[side.rank] = side
        if len(first.sides) == 2:
            queue.remove(first)
            self._match_message(first)
        elif side.rank == source and self.faults.eager():
            first.done[source] = side.time_s  # copied away: the sender goes on though nobody receives yet
        return first

    def _match_message(self, transfer: Transfer) -> None:
        source, to = transfer.ranks
        sent, received = transfer.sides[source], transfer.sides[to]
        wrong = mismatch(sent, received)
        if wrong:
            ends = f"rank {source} sends {describe(sent)} and rank {to} receives {describe(received)}"
            raise SimulationError(f"mismatched {wrong}: {ends}")
        start = max(sent.time_s, received.time_s)
        if self.faults.drops(source, to):
            transfer.done.setdefault(source, start)
        else:
            transfer.transit = self.network.message(source, to, sent.bytes, start)
            arrived = transfer.transit.done + self.faults.delay_s()
            transfer.done.setdefault(source, arrived)
            transfer.done[to] = arrived
        self._wake(transfer)

    def collective(self, op: str, axis: str, ranks: tuple[int, ...], wire: int, side: Side) -> Transfer:
        """Join the next collective of this group; `wire` is the bytes that each rank puts on the ring, or sends."""
        queue = self._groups.setdefault((axis, ranks), deque())
        transfer = next((open_one for open_one in queue if side.rank not in open_one.sides), None)
        if transfer is None:
            transfer = Transfer(op, ranks)
            queue.append(transfer)
        first = next(iter(transfer.sides.values()), side)
        wrong = "order" if op != transfer.op else mismatch(first, side)
        if wrong:
            ends = f"rank {first.rank} is in {transfer.op} of {describe(first)}"
            raise SimulationError(
                f"mismatched {wrong}: {ends} and rank {side.rank} in {op} of {describe(side)}"
            )
        transfer.sides[side.rank] = side
        if len(transfer.sides) == len(ranks):
            queue.remove(transfer)
            start = max(each.time_s for each in transfer.sides.values())
            transfer.transit = self.network.collective(op, ranks, wire, start)
            delay = self.faults.delay_s() if len(ranks) > 1 else 0
            transfer.done = dict.fromkeys(ranks, transfer.transit.done + delay)
            self._wake(transfer)
        return transfer

    def _wake(self, transfer: Transfer) -> None:
        for rank in transfer.asleep:
            if rank in transfer.done:
                self.engine.wake(rank)

    def wait(self, transfer: Transfer, rank: int) -> float:
        """Suspend the running rank until its part is done; returns that time."""
        if rank not in transfer.done:
            transfer.asleep.append(rank)
            self.engine.sleep(lambda: transfer.waiting(rank))
        return transfer.done[rank]

    def finish(self) -> None:
        """Raises SimulationError for messages and collectives that were never completed."""
        left = [t for queue in (*self._channels.values(), *self._groups.values()) for t in queue]
        self._channels.clear()
        self._groups.clear()
        if left:
            texts = [f"rank {rank} {transfer.waiting(rank)}" for transfer in left for rank in transfer.sides]
            raise SimulationError(f"left over at the end: {'; '.join(texts)}")


def same(one: Tensor, other: Tensor) -> bool:
    """Equal bit by bit, NaN included."""
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
