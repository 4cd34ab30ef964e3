"""What a rank communicated and what it holds: every message with its bytes and its wait, every buffer with its kind.

Byte conventions (Table 1's "wire bytes", per rank, n ranks on the axis): a message counts its own size; all-gather
(n-1) times the own shard; all-to-all (n-1)/n of the tensor; all-reduce 2(n-1)/n of the tensor; a broadcast (n-1) times
the tensor at its source.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pipefusion.core.mesh import Axis

Kind = Literal["kv", "buffer", "comm"]


class Where(NamedTuple):
    """The place of a communication in the run; -1 where a coordinate does not apply (patch -1: the whole image).

    `micro` is the image and branch alone that a micro-batch is of; -1: all of the batch.
    """

    step: int = -1
    layer: int = -1
    patch: int = -1
    micro: int = -1


def wire_bytes(op: str, nbytes: int, n: int) -> int:
    """Bytes that a rank sends in a collective of `n` ranks to which it brings `nbytes` (a broadcast: at its source)."""
    return {
        "broadcast": nbytes * (n - 1),
        "all_gather": nbytes * (n - 1),
        "all_to_all": nbytes * (n - 1) // n,
        "all_reduce": 2 * nbytes * (n - 1) // n,
    }[op]


@dataclass(slots=True)
class Span:
    """A stretch of a rank's time: computing, starting the communication `op` (issue), or waiting for it.

    Seconds from the image's start.
    """

    kind: Literal["compute", "issue", "wait"]
    at: Where
    start_s: float
    end_s: float
    op: str = ""

    def row(self, rank: int) -> dict[str, Any]:
        """The span as a row of `timeline.parquet`."""
        return {
            "rank": rank,
            "kind": self.kind,
            "op": self.op,
            "step": self.at.step,
            "layer": self.at.layer,
            "patch": self.at.patch,
            "start_s": self.start_s,
            "end_s": self.end_s,
        }


@dataclass(slots=True)
class Entry:
    """One communication of one rank: when it was started, how long that took the host, how long it was waited for.

    Times are seconds from the start of the image. In virtual time, starting is part of computing.
    """

    op: str
    axis: str
    peer: int
    at: Where
    sent_bytes: int
    recv_bytes: int
    is_async: bool
    start_s: float = 0.0
    issue_s: float = 0.0
    wait_s: float = 0.0

    def row(self, rank: int) -> dict[str, Any]:
        """The entry as a row of `ledger.parquet`."""
        return {
            "rank": rank,
            "step": self.at.step,
            "layer": self.at.layer,
            "patch": self.at.patch,
            "op": self.op,
            "peer": self.peer,
            "axis": self.axis,
            "bytes": max(self.sent_bytes, self.recv_bytes),
            "sent_bytes": self.sent_bytes,
            "recv_bytes": self.recv_bytes,
            "start_s": self.start_s,
            "issue_s": self.issue_s,
            "wait_s": self.wait_s,
            "async": self.is_async,
        }


def collective(op: str, place: Axis, at: Where, nbytes: int, is_async: bool, source: int = -1) -> Entry:
    """The entry of a rank with this `place` on the axis, which brings `nbytes` (a broadcast: of the tensor)."""
    sent = received = wire_bytes(op, nbytes, place.size)
    if op == "broadcast":
        sent, received = (sent, 0) if place.index == source else (0, nbytes)
    return Entry(op, place.name, source, at, sent, received, is_async)


def link_bytes(entry: Entry, nbytes: int) -> int:
    """What a collective puts on every link of its ranks' ring, or from each rank on its port: a broadcast's once."""
    return nbytes if entry.op == "broadcast" else entry.sent_bytes


@dataclass
class Ledger:
    """All communications of one rank for one image, what it did when, and its buffers, by kind in bytes."""

    entries: list[Entry] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    buffer_bytes: dict[str, int] = field(default_factory=lambda: {"kv": 0, "buffer": 0, "comm": 0})
    decisions: dict[Where, bool] = field(default_factory=dict)
    """By step and patch whether a step cache had the blocks computed."""
    warmup: int | None = None
    """W where it was found out, of the image."""

    def clear(self) -> None:
        """Forget everything: called between two images."""
        self.entries.clear()
        self.spans.clear()
        self.decisions.clear()
        self.warmup = None
        for kind in self.buffer_bytes:
            self.buffer_bytes[kind] = 0

    def hold(self, kind: Kind, nbytes: int) -> None:
        """Count bytes that are held for the image, and were not asked of the fabric."""
        self.buffer_bytes[kind] += nbytes

    def move(self, source: Kind, to: Kind, nbytes: int) -> None:
        """Recount bytes of a buffer under another kind."""
        self.buffer_bytes[source] -= nbytes
        self.buffer_bytes[to] += nbytes

    def span(
        self, kind: Literal["compute", "issue", "wait"], at: Where, start_s: float, end_s: float, op: str = ""
    ) -> None:
        """Add a stretch of time after those there are; joined to the last one where that goes on with the same."""
        if end_s <= start_s:
            return
        last = self.spans[-1] if self.spans else None
        if last and last.kind == kind and last.at == at and last.op == op and last.end_s == start_s:
            last.end_s = end_s
        else:
            self.spans.append(Span(kind, at, start_s, end_s, op))

    @property
    def computed_steps(self) -> float | None:
        """Steps that were computed and not skipped, of patches the mean; None where no cache decides."""
        steps: dict[int, list[bool]] = {}
        for at, computed in self.decisions.items():
            steps.setdefault(at.step, []).append(computed)
        return sum(sum(each) / len(each) for each in steps.values()) if steps else None

    @property
    def sent_bytes(self) -> int:
        return sum(entry.sent_bytes for entry in self.entries)

    @property
    def axis_bytes(self) -> dict[str, int]:
        """Bytes sent by mesh axis, where there are any."""
        found: dict[str, int] = {}
        for entry in self.entries:
            if entry.sent_bytes:
                found[entry.axis] = found.get(entry.axis, 0) + entry.sent_bytes
        return found

    @property
    def recv_bytes(self) -> int:
        return sum(entry.recv_bytes for entry in self.entries)

    @property
    def issue_s(self) -> float:
        return sum(entry.issue_s for entry in self.entries)

    @property
    def wait_s(self) -> float:
        return sum(entry.wait_s for entry in self.entries)
