"""A method's program on every rank without data: what each would take in seconds and hold in bytes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.ledger import Ledger, Where
from pipefusion.core.mesh import Mesh
from pipefusion.sim.engine import RankFailed, SimulationError
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.memo import MemoView
from pipefusion.sim.meta import MetaMode, Recipe
from pipefusion.sim.meter import Meter
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.script import Recorder, Script
from pipefusion.sim.timetable import Timed, timetable

META = torch.device("meta")


@dataclass
class Costs:
    """What plans may share: blocks and calls that have been run once. Any models, methods and devices."""

    blocks: dict[Any, Any] = field(default_factory=dict)
    calls: dict[Any, Recipe] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedRank:
    """One rank after the plan: its part of the model, its buffers in bytes by kind, its operations, its times.

    `decisions` are a step cache's. Ranks that do the same share all but times; their parts may be other slices, and
    are `built` when asked for.
    """

    built: Callable[[], DiT]
    buffer_bytes: dict[str, int]
    decisions: dict[Where, bool]
    meter: Meter
    timed: Timed

    @cached_property
    def dit(self) -> DiT:
        """The rank's part of the model."""
        return self.built()

    @property
    def compute_s(self) -> float:
        """Seconds in which it computes or starts communications."""
        return self.timed.seconds[0]

    @property
    def wait_s(self) -> float:
        """Seconds in which it waits for communications."""
        return sum(self.timed.seconds[1])

    @property
    def stage_wait_s(self) -> float:
        """Of these, seconds in which it waits for another stage."""
        pairs = zip(self.timed.script.posts, self.timed.seconds[1], strict=True)
        return sum(wait for post, wait in pairs if post.axis == "pipe")

    @property
    def total_s(self) -> float:
        """When its program is over."""
        return self.timed.total_s

    @property
    def sent_bytes(self) -> int:
        """Bytes that it puts on the wire."""
        return sum(post.sent_bytes for post in self.timed.script.posts)

    @property
    def ledger(self) -> Ledger:
        """Its communications, and what it does when: made when asked for."""
        return replace(self.timed.ledger, buffer_bytes=self.buffer_bytes, decisions=self.decisions)


def plan_ranks(
    build: Callable[[Any, Recorder], Sampler],
    template: DiT,
    mesh: Mesh,
    scheduler: Any,
    noise: Tensor,
    cond: Conditioning,
    device: DeviceConfig | None = None,
    topology: TopologyConfig | None = None,
    costs: Costs | None = None,
    view: type[MemoView] = MemoView,
    apart: Collection[str] | None = None,
    steady: range = range(0),
) -> list[PlannedRank]:
    """Every rank of `mesh` samples once on `meta`; noise [B, C, H, W] and `cond` may lie anywhere.

    `apart`: the axes on which ranks have programs of their own; along all others they do the same beside other peers,
    and one program is run for all. None: every rank's own is run. `steady`: the steps in which every block does what
    it did in the step before; of these the first is run and the others repeat it.

    Without `device` and `topology` the seconds mean nothing, bytes do. Raises `RankFailed` and `SimulationError`.
    """
    device, topology, costs = device or DeviceConfig(), topology or TopologyConfig(), costs or Costs()
    noise, cond = noise.to(META), cond.to(META)

    def start(rank: int) -> tuple[DiT, Recorder, Sampler]:
        dit, meter = template.clone(), Meter(device)
        fabric = Recorder(mesh, rank, META, meter)
        return dit, fabric, build(view(dit, fabric, meter, costs.blocks, steady), fabric)

    def part(rank: int, known: DiT | None) -> DiT:
        return start(rank)[0] if known is None else known

    def record(rank: int) -> tuple[DiT, Recorder, Script]:
        dit, fabric, sampler = start(rank)
        meter = fabric.meter
        meter.hold([*dit.model.parameters(), *dit.model.buffers(), noise, *cond.tensors])
        try:
            with MetaMode(lambda: meter, costs.calls):
                sampler(noise, cond, scheduler)
        except SimulationError:
            raise
        except Exception as error:
            raise RankFailed(f"{mesh.name(rank)}: {type(error).__name__}: {error}") from error
        return dit, fabric, fabric.close()

    axes = tuple(mesh.axes) if apart is None else tuple(apart)
    places = [tuple(mesh.axis(axis, rank).index for axis in axes) for rank in range(mesh.size)]
    found: dict[tuple[int, ...], tuple[DiT, Recorder, Script]] = {}
    with torch.inference_mode(), collector_off():
        for rank, place in enumerate(places):
            if place not in found:
                found[place] = record(rank)
        times = timetable([found[place][2] for place in places], mesh, device, topology)
    ranks = []
    for place, timed in zip(places, times, strict=True):
        dit, fabric, _ = found[place]
        own = dit if timed.rank == fabric.rank else None
        held, made = fabric.ledger.buffer_bytes, fabric.ledger.decisions
        ranks.append(PlannedRank(partial(part, timed.rank, own), held, made, fabric.meter, timed))
    return ranks


@contextmanager
def collector_off() -> Iterator[None]:
    """No search for garbage in between: a plan makes millions of small objects and no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
