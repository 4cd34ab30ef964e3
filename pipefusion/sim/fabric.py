"""The fabric of one logical rank in virtual time, stricter with its user than real communication libraries are.

What is received appears when it is waited for, and is NaN before; what is sent may not change until the send was
waited for; nothing may be left over. A program that gets through uses its buffers correctly in any order of events.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from pipefusion.core.fabric import Work
from pipefusion.core.ledger import Entry, Kind, Ledger, Where, collective, link_bytes
from pipefusion.core.mesh import Axis, Mesh
from pipefusion.sim.clock import Clock
from pipefusion.sim.engine import Engine, SimulationError
from pipefusion.sim.exchange import Exchange, Side, Transfer, check_out, place
from pipefusion.sim.guard import Claim, Guard
from pipefusion.sim.network import Overlap


class SimWork:
    """A communication under way; waiting for it takes virtual time and delivers what was received."""

    __slots__ = ("_fabric", "claim", "deliver", "entry", "side", "transfer")

    def __init__(
        self,
        fabric: SimFabric,
        entry: Entry,
        transfer: Transfer,
        side: Side,
        claim: Claim | None,
        deliver: Callable[[], None] | None,
    ):
        self._fabric, self.entry, self.transfer = fabric, entry, transfer
        self.side, self.claim, self.deliver = side, claim, deliver

    def wait(self) -> None:
        """Suspend the rank until the transfer is done. Raises SimulationError if what was sent has been overwritten."""
        self._fabric.finish_work(self)


class SimFabric:
    """Fabric of `rank`. `clear` starts a new image; the ledger's times are virtual seconds since then."""

    def __init__(self, mesh: Mesh, rank: int, device: torch.device, engine: Engine, exchange: Exchange):
        self.mesh, self.rank, self.device = mesh, rank, device
        self.ledger = Ledger()
        self._engine, self._exchange = engine, exchange
        self._clock: Clock = engine.clocks[rank]
        self._axes: dict[str, Axis] = {}
        self._open: dict[SimWork, None] = {}
        self._guard = Guard(rank)
        self._calls = 0
        self.watch: Callable[[Where], None] | None = None  # called with what comes next, for a progress bar
        self._data = device.type != "meta"
        self.clear()

    def clear(self) -> None:
        """Start a new image: empty ledger, time zero."""
        self.ledger.clear()
        self.place, self._messaged = Where(), -1.0  # when the last call was, if it was a message
        self._origin = self._last = self._clock.read()
        self._overlap = Overlap()

    def begin(self, at: Where) -> None:
        self._compute_until(self._clock.read())
        self.place, self._messaged = at, -1.0
        if self.watch:
            self.watch(at)

    def close(self) -> tuple[float, float, float]:
        """(compute_s, wait_s, total_s) since `clear`. Raises SimulationError for what was never waited for."""
        if self._open:
            entry = next(iter(self._open)).entry
            text = f"rank {self.rank} never waited for its {entry.op} of {place(entry.at)}"
            self._open.clear()
            raise SimulationError(f"missing wait: {text}")
        now = self._clock.read()
        self._compute_until(now)
        compute = sum(span.end_s - span.start_s for span in self.ledger.spans if span.kind == "compute")
        return compute, self.ledger.wait_s, now - self._origin

    def axis(self, name: str) -> Axis:
        if name not in self._axes:
            self._axes[name] = self.mesh.axis(name, self.rank)
        return self._axes[name]

    def empty(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        self.ledger.buffer_bytes[kind] += prod(shape) * dtype.itemsize
        return torch.empty(shape, dtype=dtype, device=self.device)

    def zeros(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        tensor = self.empty(kind, *shape, dtype=dtype)
        return tensor.zero_() if self._data else tensor

    def isend(self, tensor: Tensor, to: int, *, axis: str, at: Where, tag: int = 0) -> Work:
        now, ranks = self._enter(tensor, message=True), self.axis(axis).ranks
        entry = Entry("send", axis, to, at, tensor.nbytes, 0, True)
        side = self._side(tensor, at, now, sends=True)
        transfer = self._exchange.message((axis, tag), self.rank, ranks[to], side)
        return self._start(entry, transfer, side, None, None)

    def irecv(self, out: Tensor, source: int, *, axis: str, at: Where, tag: int = 0) -> Work:
        now, sender = self._enter(out, message=True), self.axis(axis).ranks[source]
        entry = Entry("recv", axis, source, at, 0, out.nbytes, True)
        side = self._side(out, at, now, sends=False)
        claim = self._claim(out, at)
        transfer = self._exchange.message((axis, tag), sender, self.rank, side)

        def deliver() -> None:
            payload = transfer.sides[sender].payload
            assert payload is not None
            out.copy_(payload)

        return self._start(entry, transfer, side, claim, deliver)

    def send(self, tensor: Tensor, to: int, *, axis: str, at: Where) -> None:
        self.isend(tensor, to, axis=axis, at=at).wait()

    def recv(self, out: Tensor, source: int, *, axis: str, at: Where) -> None:
        self.irecv(out, source, axis=axis, at=at).wait()

    def broadcast(
        self, tensor: Tensor, source: int, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        mine = self.axis(axis)
        entry = collective("broadcast", mine, at, tensor.nbytes, async_op, source)

        def deliver(parts: list[Tensor]) -> None:
            tensor.copy_(parts[source])

        return self._collect(entry, (tensor,), None if mine.index == source else tensor, deliver)

    def all_gather(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        mine = self.axis(axis)
        check_out(self.rank, out, (mine.size, *tensor.shape), at)

        def deliver(parts: list[Tensor]) -> None:
            for index, part in enumerate(parts):
                out[index].copy_(part)

        entry = collective("all_gather", mine, at, tensor.nbytes, async_op)
        return self._collect(entry, (out, tensor), out, deliver)

    def all_to_all(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        mine = self.axis(axis)
        check_out(self.rank, out, tuple(tensor.shape), at)

        def deliver(parts: list[Tensor]) -> None:
            for index, part in enumerate(parts):
                out[index].copy_(part[mine.index])

        entry = collective("all_to_all", mine, at, tensor.nbytes, async_op)
        return self._collect(entry, (out, tensor), out, deliver)

    def all_reduce(self, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False) -> Work | None:
        def deliver(parts: list[Tensor]) -> None:
            total = parts[0].clone()
            for part in parts[1:]:
                total += part
            tensor.copy_(total)

        entry = collective("all_reduce", self.axis(axis), at, tensor.nbytes, async_op)
        return self._collect(entry, (tensor,), tensor, deliver)

    def _enter(self, tensor: Tensor, message: bool = False) -> float:
        """Leave the rank's own time, and let whoever is earlier go first; this rank's time now."""
        self._clock.pause()
        if not message or self._clock.read() != self._messaged:
            self._clock.spend(self._exchange.network.call_s(1 if message else None))
        now = self._clock.read()
        self._messaged = now if message else -1.0
        self._compute_until(now)
        self._exchange.faults.check_alive(self.rank, self._calls)
        self._calls += 1
        if not tensor.is_contiguous():
            raise SimulationError(f"rank {self.rank}: {list(tensor.shape)} is not contiguous")
        self._engine.turn()
        return now

    def _compute_until(self, now: float) -> None:
        self.ledger.span("compute", self.place, self._last - self._origin, now - self._origin)
        self._last = now

    def _start(
        self,
        entry: Entry,
        transfer: Transfer,
        side: Side,
        claim: Claim | None,
        deliver: Callable[[], None] | None,
    ) -> SimWork:
        entry.start_s = side.time_s - self._origin
        self.ledger.entries.append(entry)
        work = SimWork(self, entry, transfer, side, claim, deliver if self._data else None)
        self._open[work] = None
        self._clock.resume()
        return work

    def _collect(
        self,
        entry: Entry,
        tensors: tuple[Tensor, ...],
        into: Tensor | None,
        deliver: Callable[[list[Tensor]], None],
    ) -> Work | None:
        """A collective on the entry's axis, waited for unless asynchronous.

        `tensors` as the call was given them; `into` is the one that is received into.
        """
        tensor = tensors[-1]
        now, ranks = self._enter(tensor), self.axis(entry.axis).ranks
        side = self._side(tensor, entry.at, now, sends=True)
        claim = self._claim(into, entry.at) if into is not None else None
        transfer = self._exchange.collective(
            entry.op, entry.axis, ranks, link_bytes(entry, tensor.nbytes), side
        )

        def arrive() -> None:
            parts = [transfer.sides[rank].payload for rank in ranks]
            deliver([part for part in parts if part is not None])

        if into is tensor:
            side.tensor = None  # in place: what was sent is gone by design
        work = self._start(entry, transfer, side, claim, arrive)
        if entry.is_async:
            return work
        work.wait()
        return None

    def _side(self, tensor: Tensor, at: Where, now: float, sends: bool) -> Side:
        """This rank's part in a transfer."""
        payload = tensor.clone() if sends and self._data else None
        return Side(self.rank, tensor, at, now, payload, tensor.shape, tensor.dtype, tensor.nbytes)

    def _claim(self, out: Tensor, at: Where) -> Claim | None:
        return self._guard.claim(out, at) if self._data else None

    def finish_work(self, work: SimWork) -> None:
        """`SimWork.wait`."""
        if work not in self._open:
            return
        del self._open[work]
        entry = work.entry
        if work.claim:
            self._guard.release(work.claim)
        self._clock.pause()
        self._messaged = -1.0
        done, transfer = self._exchange.wait(work.transfer, self.rank), work.transfer
        if transfer.transit:
            message, transit, now = transfer.op == "message", transfer.transit, self._clock.read()
            under_it = self._overlap.seconds(transit, now)
            self._clock.delay(self._exchange.network.lost_s(message, under_it))
        before = self._clock.read()
        self._compute_until(before)
        self._clock.wait_until(done)
        after = self._clock.read()
        if after > before:
            entry.wait_s += after - before
            self.ledger.span("wait", entry.at, before - self._origin, after - self._origin, entry.op)
        self._last = after
        self._guard.check_sent(work.side, entry)
        work.side.tensor = None
        if work.deliver:
            work.deliver()
        self._clock.resume()
