"""N logical ranks, the links between them, and a way to run one program on all: what a launch is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from pipefusion.core.mesh import Mesh
from pipefusion.sim.agreement import disagreement
from pipefusion.sim.clock import Clock, FixedClock, MeasuredClock
from pipefusion.sim.engine import Engine, RankFailed, SimulationError
from pipefusion.sim.exchange import Exchange
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.faults import Faults
from pipefusion.sim.network import Network, TopologyConfig


class World:
    """One fabric a rank. `run` may be called again and again: clocks go on, and start each time from the latest."""

    def __init__(
        self,
        mesh: Mesh,
        device: torch.device,
        topology: TopologyConfig,
        faults: Faults | None = None,
        clocks: Sequence[Clock] | None = None,
    ):
        faults = faults or Faults()
        if clocks is None and faults.seed is not None:
            clocks = [FixedClock(faults.pace(rank)) for rank in range(mesh.size)]
        self.clocks = clocks or [MeasuredClock() for _ in range(mesh.size)]
        self.engine = Engine(self.clocks, mesh.name)
        self.exchange = Exchange(self.engine, Network(topology), faults)
        self.fabrics = [
            SimFabric(mesh, rank, device, self.engine, self.exchange) for rank in range(mesh.size)
        ]

    def run(self, program: Callable[[SimFabric], Any]) -> list[Any]:
        """`program(fabric)` on every rank from a common start; what each returned, in rank order.

        Raises `RankFailed` and `SimulationError`, after which the world is of no further use. Ranks that do not skip
        the same jobs are named first: what follows from that may be anything.
        """
        start = max(clock.read() for clock in self.clocks)
        for clock in self.clocks:
            clock.wait_until(start)
        for fabric in self.fabrics:
            fabric.clear()
        fault: Exception | None = None
        try:
            results = self.engine.run([partial(program, fabric) for fabric in self.fabrics])
            self.exchange.finish()
        except (RankFailed, SimulationError) as error:
            fault = error
        apart = disagreement(self.fabrics)
        if apart:
            raise SimulationError(apart) from fault
        if fault:
            raise fault
        return results
