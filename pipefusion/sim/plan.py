"""A method's program on every rank without data: what each would take in seconds and hold in bytes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipefusion.core.dit import Conditioning, DiT, Sampler
from pipefusion.core.mesh import Mesh
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.memo import MemoView
from pipefusion.sim.meta import MetaMode, Recipe
from pipefusion.sim.meter import Meter
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.world import World

META = torch.device("meta")


@dataclass
class Costs:
    """What plans may share: blocks and calls that have been run once. Any models, methods and devices."""

    blocks: dict[Any, Any] = field(default_factory=dict)
    calls: dict[Any, Recipe] = field(default_factory=dict)


class PlannedRank(NamedTuple):
    """One rank after the plan: its part of the model, its ledger, its bytes and operations, its seconds."""

    dit: DiT
    fabric: SimFabric
    meter: Meter
    compute_s: float
    wait_s: float
    total_s: float


def plan_ranks(
    build: Callable[[Any, SimFabric], Sampler],
    template: DiT,
    mesh: Mesh,
    scheduler: Any,
    noise: Tensor,
    cond: Conditioning,
    device: DeviceConfig | None = None,
    topology: TopologyConfig | None = None,
    costs: Costs | None = None,
    view: type[MemoView] = MemoView,
) -> list[PlannedRank]:
    """Every rank of `mesh` samples once on `meta`; noise [B, C, H, W] and `cond` may lie anywhere.

    Without `device` and `topology` the seconds mean nothing, bytes do. Raises `RankFailed` and `SimulationError`.
    """
    device, topology, costs = device or DeviceConfig(), topology or TopologyConfig(), costs or Costs()
    noise, cond = noise.to(META), cond.to(META)
    meters = [Meter(device) for _ in range(mesh.size)]
    world = World(mesh, META, topology, clocks=meters)
    dits, samplers = [], []
    for meter, fabric in zip(meters, world.fabrics, strict=True):
        dit = template.clone()
        samplers.append(build(view(dit, fabric, meter, costs.blocks), fabric))
        meter.hold([*dit.model.parameters(), *dit.model.buffers(), noise, *cond.tensors])
        dits.append(dit)

    def program(fabric: SimFabric) -> tuple[float, float, float]:
        samplers[fabric.rank](noise, cond, scheduler)
        return fabric.close()

    running = MetaMode(lambda: meters[world.engine.current], costs.calls)
    with torch.inference_mode(), running, collector_off():
        times = world.run(program)
    return [
        PlannedRank(dit, fabric, meter, *seconds)
        for dit, fabric, meter, seconds in zip(dits, world.fabrics, meters, times, strict=True)
    ]


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
