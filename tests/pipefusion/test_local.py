"""The real fabric's times, and its channels on gloo ranks, which take part in what NCCL needs."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from pipefusion.core.channels import channels
from pipefusion.core.ledger import Entry, Where
from pipefusion.core.local import LocalFabric
from pipefusion.core.mesh import Mesh

CPU = torch.device("cpu")


class EventClock:
    """Marks that, as CUDA's events do, tell the time between two of them as a float32 of milliseconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        return self.now

    def seconds(self, start: float, end: float) -> float:
        return float(np.float32((end - start) * 1e3)) / 1e3


def a_fabric(monkeypatch: pytest.MonkeyPatch) -> LocalFabric:
    """Of one rank, without a process group."""
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(dist, "isend", lambda *args, **kwargs: SimpleNamespace(wait=lambda: None))
    fabric = LocalFabric(Mesh({"a": 1}), CPU)
    fabric.clock = EventClock()
    fabric.clear()
    return fabric


def test_starting_a_transfer_is_neither_computing_nor_waiting(monkeypatch):
    fabric = a_fabric(monkeypatch)
    clock = fabric.clock
    clock.now = 2.0
    monkeypatch.setattr(dist, "isend", lambda *args, **kwargs: late(clock, 0.5))
    work = fabric.isend(torch.zeros(1), 0, axis="a", at=Where(3))
    clock.now += 4.0
    work.wait()
    compute_s, wait_s, total_s = fabric.close()
    (entry,) = fabric.ledger.entries
    assert (compute_s, fabric.ledger.issue_s, wait_s, total_s) == (6.0, 0.5, 1.0, 7.5)
    assert (entry.start_s, entry.issue_s, entry.wait_s) == (2.0, 0.5, 1.0)
    assert [span.kind for span in fabric.ledger.spans] == ["compute", "issue", "compute", "wait"]
    assert entry.row(0)["issue_s"] == 0.5


def late(clock: EventClock, issue_s: float) -> SimpleNamespace:
    """A transfer that takes the host so long to start, and is waited for one second."""
    clock.now += issue_s

    def wait() -> None:
        clock.now += 1.0

    return SimpleNamespace(wait=wait)


def test_times_of_a_long_image_keep_their_microseconds(monkeypatch):
    """Read from the start of the image, an hour in milliseconds has steps of 0.25 ms as a float32."""
    fabric = a_fabric(monkeypatch)
    for _ in range(1000):
        fabric.clock.now += 3.6
        close = fabric.timed(Entry("send", "a", 0, Where(), 0, 0, True), "wait")
        fabric.clock.now += 11e-6
        close()
    compute_s, _, total_s = fabric.close()
    waits = sum(span.end_s - span.start_s for span in fabric.ledger.spans if span.kind == "wait")
    assert waits == pytest.approx(0.011, rel=1e-4)
    assert compute_s == pytest.approx(3600.0, rel=1e-9)
    assert total_s == pytest.approx(3600.011, rel=1e-9)


def test_every_group_has_the_timeout_of_the_cluster(monkeypatch):
    made = []
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "new_group", lambda ranks, timeout: made.append((tuple(ranks), timeout)))
    mesh, timeout = Mesh({"pipe": 2, "ring": 2}), timedelta(seconds=7)
    fabric = LocalFabric(mesh, CPU, timeout)
    for channel in channels(mesh):
        fabric._make_group(channel, timeout)
    assert {ranks for ranks, _ in made} >= {(0, 1), (1, 0), (0, 2), (2, 0)}
    assert {given for _, given in made} == {timeout}


def connected(skips: bool) -> list[tuple[str, int]]:
    """Make and connect all channels of a ring on gloo, then send once round it through the hops."""
    mesh = Mesh({"ring": dist.get_world_size()})
    fabric = LocalFabric(mesh, CPU)
    fabric._groups = {channel: fabric._make_group(channel, None) for channel in channels(mesh)}
    fabric._connect(skips)
    n, out = mesh.size, torch.zeros(1)
    received = fabric.irecv(out, (fabric.rank - 1) % n, axis="ring", at=Where(0))
    fabric.isend(torch.full((1,), float(fabric.rank)), (fabric.rank + 1) % n, axis="ring", at=Where(0)).wait()
    received.wait()
    return int(out)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_connect_every_channel_and_use_it(ranks, size):
    for skips in (False, True):
        assert ranks.run(size, connected, skips) == [(rank - 1) % size for rank in range(size)]
