"""`measure=bandwidth`: latency of each method when the links between the same devices are slower or faster.

The cluster's devices stand at one switch, each with a port like the cluster's own but for its bandwidth: what starts a
call and what a hop takes stay, and so does all that is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import pandas as pd
from omegaconf import OmegaConf

from analysis.predicted import bandwidth
from analysis.records.study import Record
from experiments.config import CONF, RunConfig
from experiments.errors import config_names
from experiments.grid import GridConfig
from experiments.journal import Row
from experiments.methods import parallel_degrees
from experiments.runs.plan import plan
from experiments.session import Session, machine
from experiments.studies.scaling import check_costs, outcome
from experiments.study import Cell, Study, by_itself
from pipefusion.core.domain import Domain, Grid, PatchCounts, Threads, Warmups
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.timetable import timetable

GB = 1e9
SAME = ("status", "reason", "peak_bytes", "param_bytes", "kv_bytes", "sent_bytes", "missing_bytes")
"""What of a plan does not depend on links."""
Speed = Annotated[float, Domain(0, 1e6, above=True)]  # GB/s


@dataclass
class BandwidthConfig(GridConfig):
    """The grid, and the bandwidths in GB/s and one direction. `workers` null: a process for each core."""

    name: str = "bandwidth"
    methods: Grid[str] = field(
        default_factory=lambda: ["serial", "tensor", "ulysses", "ring", "distrifusion", "pipefusion"]
    )
    patches: list[PatchCounts] = field(default_factory=lambda: [4, 8, 16])
    warmups: list[Warmups] = field(default_factory=lambda: [1])
    bandwidths: Grid[Speed] = field(
        default_factory=lambda: [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 900.0]
    )
    workers: Threads | None = None


def measure(cell: Cell, session: Session) -> list[Row]:
    """A row for each bandwidth: the programs of a run are planned once, and timed on every link."""
    cfg, planned = cell.cfg, plan(cell.cfg, session)
    device, topology = machine(cfg.cluster)
    scripts, mesh = [rank.timed.script for rank in planned.ranks], parallel_degrees(cfg).mesh()
    same = {key: value for key, value in outcome(planned).items() if key in SAME}
    rows = []
    for speed in cfg.measure.bandwidths:
        port = replace(topology.port, bandwidth=speed * GB, stream_bandwidth=None)
        times = timetable(scripts, mesh, device, TopologyConfig(cfg.devices, port))
        seconds = max(one.total_s for one in times) if planned.latency_s is not None else None
        rows.append(cell.place | same | {"bandwidth": speed, "predicted_latency_s": seconds})
    return rows


def facts(cfg: RunConfig, rows: pd.DataFrame, session: Session) -> dict[str, Any]:
    """Named links, to find one's own on the axis: GB/s in one direction."""
    paths = {name: CONF / "link" / f"{name}.yaml" for name in config_names("link")}
    return {
        "links": {
            name: float(OmegaConf.select(OmegaConf.load(path), "bandwidth")) / GB
            for name, path in paths.items()
        }
    }


def title(record: Record) -> str:
    """What was swept."""
    return f"PREDICTED: {bandwidth.subject(record)}"


def summary(record: Record) -> str:
    """Where each method leaves its own best, and PipeFusion."""
    return "\n".join(bandwidth.sentences(bandwidth.crossings(record.rows)))


BANDWIDTH = Study(
    "bandwidth",
    measure,
    tuple(bandwidth.CROSSINGS),
    title,
    group=by_itself,
    facts=facts,
    shown=bandwidth.readable,
    summary=summary,
    check=check_costs,
)
