"""The real fabric: `torch.distributed`, gloo on CPU and nccl on CUDA, one process a rank."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from math import prod
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from pipefusion.core.channels import Channel, channels, handshakes, message_channel
from pipefusion.core.fabric import Work
from pipefusion.core.ledger import Entry, Kind, Ledger, Where, collective
from pipefusion.core.mesh import Axis, Mesh


class WallClock:
    """Marks are `time.perf_counter` readings: on a CPU, work is done when the call returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class CudaClock:
    """Marks are events on the current stream, so that timing never stops the GPU; read them after a synchronise."""

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        # A float32 of milliseconds: exact for marks near each other only.
        return start.elapsed_time(end) / 1e3


class LocalWork:
    """A communication under way; waiting for it is timed in its ledger entry."""

    def __init__(self, fabric: LocalFabric, entry: Entry, work: Any, tensors: tuple[Tensor, ...]):
        self._fabric, self._entry, self._work, self._tensors = fabric, entry, work, tensors

    def wait(self) -> None:
        """Block (on CUDA: make the stream wait) until the tensors may be used."""
        close = self._fabric.timed(self._entry, "wait")
        try:
            self._work.wait()
        except RuntimeError as error:
            entry = self._entry
            raise RuntimeError(
                f"rank {self._fabric.rank}: {entry.op} on the axis {entry.axis} failed: another rank ended, took "
                f"longer than the timeout, or did not make the same calls with the same arguments ({error})"
            ) from error
        close()
        self._tensors = ()


class LocalFabric:
    """Fabric of one rank. `clear` starts a new image; `compute_s` and the ledger's waits cover the time since.

    `timeout` of the communicators it makes (none: torch's own). `skips`: see `handshakes`.
    """

    def __init__(
        self, mesh: Mesh, device: torch.device, timeout: timedelta | None = None, skips: bool = True
    ):
        self.mesh, self.device = mesh, device
        self.rank, self._world = dist.get_rank(), dist.group.WORLD
        self.ledger = Ledger()
        self.watch: Callable[[Where], None] | None = None  # called with what comes next, for a progress bar
        self.clock: WallClock | CudaClock = CudaClock() if device.type == "cuda" else WallClock()
        # gloo matches messages by their tag and needs no more than the lines.
        wanted = [channel for channel in channels(mesh) if channel.hop is None or device.type == "cuda"]
        self._groups = {channel: self._make_group(channel, timeout) for channel in wanted}
        if device.type == "cuda":
            self._connect(skips)
        self.clear()

    def _make_group(self, channel: Channel, timeout: timedelta | None) -> Any:
        """The process group of a channel; every rank makes all of them, in the same order."""
        if len(channel.members) == dist.get_world_size() and channel.hop is None:
            return dist.group.WORLD
        return dist.new_group(list(channel.members), timeout=timeout)

    def _connect(self, skips: bool) -> None:
        """Use every channel once, while all ranks do so in the same order."""
        token = torch.zeros(1, device=self.device)
        for channel, sender, receiver in handshakes(self.mesh, skips):
            group = self._groups[channel]
            if sender is None or receiver is None:
                if self.rank in channel.members:
                    dist.all_reduce(token, group=group)
            elif self.rank == sender:
                dist.send(token, receiver, group)
            elif self.rank == receiver:
                dist.recv(token, sender, group)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        dist.barrier()

    def clear(self) -> None:
        """Start a new image: empty ledger, time zero. Raises RuntimeError if the process group has ended since."""
        if dist.group.WORLD is not self._world:
            raise RuntimeError(
                "the process group of this fabric has ended; allowed: a new init and parallelize"
            )
        self.ledger.clear()
        self.place = Where()
        self._spans: list[tuple[Entry, Literal["issue", "wait"], Any, Any]] = []
        # communication spans so far, and what is computed from there on
        self._places: list[tuple[int, Where]] = []
        self._origin = self.clock.mark()

    def begin(self, at: Where) -> None:
        self.place = at
        self._places.append((len(self._spans), at))
        if self.watch:
            self.watch(at)

    def close(self, end: Any = None) -> tuple[float, float, float]:
        """(compute_s, wait_s, total_s) from `clear` to `end`, a mark of the clock (none: now), this rank's own.

        Wait is the sum of the spans in which transfers are waited for; starting one is the host's time, and neither
        that (the ledger's `issue_s`) nor computing. Compute is the rest. Fills the ledger's times and its timeline.
        """
        end = self.clock.mark() if end is None else end
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        compute, now, last = 0.0, 0.0, self._origin  # each mark is read from the one before it
        place, places = Where(), deque(self._places)
        for index, (entry, kind, start, stop) in enumerate(self._spans):
            while places and places[0][0] <= index:
                place = places.popleft()[1]
            begun = now + self.clock.seconds(last, start)
            done = begun + self.clock.seconds(start, stop)
            self.ledger.span("compute", place, now, begun)
            self.ledger.span(kind, entry.at, begun, done, entry.op)
            compute += begun - now
            if kind == "issue":
                entry.start_s, entry.issue_s = begun, done - begun
            else:
                entry.wait_s += done - begun
            now, last = done, stop
        total = now + self.clock.seconds(last, end)
        self.ledger.span("compute", places[-1][1] if places else place, now, total)
        return compute + total - now, self.ledger.wait_s, total

    def timed(self, entry: Entry, kind: Literal["issue", "wait"]) -> Callable[[], None]:
        """Open a span of communication for this entry; the returned function closes it."""
        start = self.clock.mark()

        def close() -> None:
            self._spans.append((entry, kind, start, self.clock.mark()))

        return close

    def axis(self, name: str) -> Axis:
        return self.mesh.axis(name, self.rank)

    def empty(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        self.ledger.buffer_bytes[kind] += prod(shape) * dtype.itemsize
        return torch.empty(shape, dtype=dtype, device=self.device)

    def zeros(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        return self.empty(kind, *shape, dtype=dtype).zero_()

    def isend(self, tensor: Tensor, to: int, *, axis: str, at: Where, tag: int = 0) -> Work:
        place = self.axis(axis)
        entry = Entry("send", axis, to, at, tensor.nbytes, 0, True)
        group = self._group(place, place.index, to, tag)
        return self._start(entry, (tensor,), dist.isend, tensor, place.ranks[to], group=group, tag=tag)

    def irecv(self, out: Tensor, source: int, *, axis: str, at: Where, tag: int = 0) -> Work:
        place = self.axis(axis)
        entry = Entry("recv", axis, source, at, 0, out.nbytes, True)
        group = self._group(place, source, place.index, tag)
        return self._start(entry, (out,), dist.irecv, out, place.ranks[source], group=group, tag=tag)

    def send(self, tensor: Tensor, to: int, *, axis: str, at: Where) -> None:
        self.isend(tensor, to, axis=axis, at=at).wait()

    def recv(self, out: Tensor, source: int, *, axis: str, at: Where) -> None:
        self.irecv(out, source, axis=axis, at=at).wait()

    def broadcast(
        self, tensor: Tensor, source: int, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        place = self.axis(axis)
        entry = collective("broadcast", place, at, tensor.nbytes, async_op, source)
        return self._collect(entry, (tensor,), dist.broadcast, tensor, place.ranks[source])

    def all_gather(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        entry = collective("all_gather", self.axis(axis), at, tensor.nbytes, async_op)
        return self._collect(entry, (out, tensor), dist.all_gather_single, out.flatten(0, 1), tensor)

    def all_to_all(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        entry = collective("all_to_all", self.axis(axis), at, tensor.nbytes, async_op)
        return self._collect(entry, (out, tensor), dist.all_to_all_single, out, tensor)

    def all_reduce(self, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False) -> Work | None:
        entry = collective("all_reduce", self.axis(axis), at, tensor.nbytes, async_op)
        return self._collect(entry, (tensor,), dist.all_reduce, tensor)

    def _group(self, place: Axis, sender: int, receiver: int, tag: int) -> Any:
        line = self._groups[Channel(place.name, place.ranks)]
        return self._groups.get(message_channel(place, sender, receiver, tag), line)

    def _start(
        self, entry: Entry, tensors: tuple[Tensor, ...], call: Callable, *args: Any, **kwargs: Any
    ) -> LocalWork:
        """Enter a communication in the ledger and start it."""
        self.ledger.entries.append(entry)
        close = self.timed(entry, "issue")
        work = call(*args, **kwargs)
        close()
        return LocalWork(self, entry, work, tensors)

    def _collect(self, entry: Entry, tensors: tuple[Tensor, ...], call: Callable, *args: Any) -> Work | None:
        """A collective on the entry's axis, waited for unless the entry is asynchronous."""

        def start(*args: Any, group: Any) -> Any:
            return call(*args, group=group, async_op=True)

        place = self.axis(entry.axis)
        group = self._groups[Channel(place.name, place.ranks)]
        work = self._start(entry, tensors, start, *args, group=group)
        if entry.is_async:
            return work
        work.wait()
        return None
