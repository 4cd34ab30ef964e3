"""The real fabric: `torch.distributed`, gloo on CPU and nccl on CUDA, one process a rank."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from pipefusion.core.fabric import Work
from pipefusion.core.ledger import Entry, Kind, Ledger, Where, wire_bytes
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
        return start.elapsed_time(end) / 1e3


class LocalWork:
    """A communication under way; waiting for it is timed in its ledger entry."""

    def __init__(self, fabric: LocalFabric, entry: Entry, work: Any, tensors: tuple[Tensor, ...]):
        self._fabric, self._entry, self._work, self._tensors = fabric, entry, work, tensors

    def wait(self) -> None:
        """Block (on CUDA: make the stream wait) until the tensors may be used."""
        close = self._fabric.timed(self._entry)
        self._work.wait()
        close()
        self._tensors = ()


class LocalFabric:
    """Fabric of one rank. `clear` starts a new image; `compute_s` and the ledger's waits cover the time since."""

    def __init__(self, mesh: Mesh, device: torch.device):
        self.mesh, self.device = mesh, device
        self.rank = dist.get_rank()
        self.ledger = Ledger()
        self.watch: Callable[[Where], None] | None = None  # told what is computed next, for a progress bar
        self.clock: WallClock | CudaClock = CudaClock() if device.type == "cuda" else WallClock()
        names = tuple(mesh.axes)
        device_mesh = init_device_mesh(device.type, tuple(mesh.axes.values()), mesh_dim_names=names)
        self._groups = {name: device_mesh.get_group(name) for name in names}
        self._edges = self._directed_edges() if device.type == "cuda" else {}
        self.clear()

    def _directed_edges(self) -> dict[tuple[str, int], Any]:
        """A communicator for each hop index -> index+1 of each ring.

        NCCL runs the operations of one communicator in order, so with two ranks a posted receive would block the send
        that its sender waits for; a communicator a direction removes that.
        """
        edges = {}
        for name, size in self.mesh.axes.items():
            lines = sorted({self.mesh.axis(name, rank).ranks for rank in range(self.mesh.size)})
            for line in lines:
                for index in range(size if size > 1 else 0):
                    group = dist.new_group([line[index], line[(index + 1) % size]])
                    if self.rank in line:
                        edges[(name, index)] = group
        return edges

    def clear(self) -> None:
        """Start a new image: empty ledger, time zero."""
        self.ledger.clear()
        self.place = Where()
        self._spans: list[tuple[Entry, Any, Any]] = []
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

        Compute is the sum of the spans between communication calls, wait the sum of the spans inside them. Fills the
        ledger's times and its timeline.
        """
        end = self.clock.mark() if end is None else end
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        compute = last = 0.0
        place, places = Where(), deque(self._places)
        for index, (entry, start, stop) in enumerate(self._spans):
            while places and places[0][0] <= index:
                place = places.popleft()[1]
            begun, done = self._since_origin(start), self._since_origin(stop)
            self.ledger.span("compute", place, last, begun)
            self.ledger.span("wait", entry.at, begun, done, entry.op)
            compute += begun - last
            if not entry.start_s:
                entry.start_s = begun
            entry.wait_s += done - begun
            last = done
        total = self._since_origin(end)
        self.ledger.span("compute", places[-1][1] if places else place, last, total)
        return compute + total - last, self.ledger.wait_s, total

    def _since_origin(self, mark: Any) -> float:
        return self.clock.seconds(self._origin, mark)

    def timed(self, entry: Entry) -> Callable[[], None]:
        """Open a span of communication for this entry; the returned function closes it."""
        start = self.clock.mark()

        def close() -> None:
            self._spans.append((entry, start, self.clock.mark()))

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
        edge = (axis, place.index) if to == (place.index + 1) % place.size else None
        entry = Entry("send", axis, to, at, tensor.nbytes, 0, True)
        group = self._group(axis, edge, tag)
        return self._start(entry, (tensor,), dist.isend, tensor, place.ranks[to], group=group, tag=tag)

    def irecv(self, out: Tensor, source: int, *, axis: str, at: Where, tag: int = 0) -> Work:
        place = self.axis(axis)
        edge = (axis, source) if place.index == (source + 1) % place.size else None
        entry = Entry("recv", axis, source, at, 0, out.nbytes, True)
        group = self._group(axis, edge, tag)
        return self._start(entry, (out,), dist.irecv, out, place.ranks[source], group=group, tag=tag)

    def send(self, tensor: Tensor, to: int, *, axis: str, at: Where) -> None:
        self.isend(tensor, to, axis=axis, at=at).wait()

    def recv(self, out: Tensor, source: int, *, axis: str, at: Where) -> None:
        self.irecv(out, source, axis=axis, at=at).wait()

    def broadcast(
        self, tensor: Tensor, source: int, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        place = self.axis(axis)
        mine = place.index == source
        wire = wire_bytes("broadcast", tensor.nbytes, place.size)
        sent, received = (wire, 0) if mine else (0, tensor.nbytes)
        entry = Entry("broadcast", axis, source, at, sent, received, async_op)
        return self._collect(entry, (tensor,), dist.broadcast, tensor, place.ranks[source])

    def all_gather(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        wire = wire_bytes("all_gather", tensor.nbytes, self.axis(axis).size)
        entry = Entry("all_gather", axis, -1, at, wire, wire, async_op)
        return self._collect(entry, (out, tensor), dist.all_gather_into_tensor, out.flatten(0, 1), tensor)

    def all_to_all(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        wire = wire_bytes("all_to_all", tensor.nbytes, self.axis(axis).size)
        entry = Entry("all_to_all", axis, -1, at, wire, wire, async_op)
        return self._collect(entry, (out, tensor), dist.all_to_all_single, out, tensor)

    def all_reduce(self, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False) -> Work | None:
        wire = wire_bytes("all_reduce", tensor.nbytes, self.axis(axis).size)
        entry = Entry("all_reduce", axis, -1, at, wire, wire, async_op)
        return self._collect(entry, (tensor,), dist.all_reduce, tensor)

    def _group(self, axis: str, edge: tuple[str, int] | None, tag: int) -> Any:
        # NCCL knows no tags and keeps one order a communicator: another tag has to go through another one.
        return self._edges.get(edge, self._groups[axis]) if edge and not tag else self._groups[axis]

    def _start(
        self, entry: Entry, tensors: tuple[Tensor, ...], call: Callable, *args: Any, **kwargs: Any
    ) -> LocalWork:
        """Enter a communication in the ledger and start it."""
        self.ledger.entries.append(entry)
        close = self.timed(entry)
        work = call(*args, **kwargs)
        close()
        return LocalWork(self, entry, work, tensors)

    def _collect(self, entry: Entry, tensors: tuple[Tensor, ...], call: Callable, *args: Any) -> Work | None:
        """A collective on the entry's axis, waited for unless the entry is asynchronous."""

        def start(*args: Any, group: Any) -> Any:
            return call(*args, group=group, async_op=True)

        work = self._start(entry, tensors, start, *args, group=self._groups[entry.axis])
        if entry.is_async:
            return work
        work.wait()
        return None
