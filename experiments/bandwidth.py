"""`measure=bandwidth`: latency of each method when the links between the same devices are slower or faster.

The cluster's devices stand at one switch, each with a port like the cluster's own but for its bandwidth: what starts a
call and what a hop takes stay, and so does all that is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import pandas as pd
from omegaconf import OmegaConf

from analysis import bandwidth
from analysis.study import Record
from experiments.config import CONF, RunConfig
from experiments.errors import config_names
from experiments.grid import GridConfig, expand, place
from experiments.journal import Row
from experiments.scaling import check_costs, planned_row
from experiments.session import Session
from experiments.study import Cell, Study
from pipefusion.core.domain import Domain, Grid, PatchCounts, Threads, Warmups
from pipefusion.sim.network import TopologyConfig

GB = 1e9
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


def runs(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """Every run of the grid at every bandwidth."""
    for one in expand(cfg, cfg.measure):
        for speed in cfg.measure.bandwidths:
            port = replace(one.cluster.topology.port, bandwidth=speed * GB, stream_bandwidth=None)
            yield replace(one, cluster=replace(one.cluster, topology=TopologyConfig(one.devices, port)))


def place_at_link(cfg: RunConfig) -> Row:
    """The first columns of a run, and the bandwidth of its links."""
    return place(cfg) | {"bandwidth": cfg.cluster.topology.port.bandwidth / GB}


def measure(cell: Cell, session: Session) -> list[Row]:
    """The one row of a run."""
    return [planned_row(cell.cfg, session)]


def same_method(cell: Cell) -> Any:
    """Runs that compute the same."""
    return cell.place["model"], cell.place["method"]


def facts(cfg: RunConfig, rows: pd.DataFrame, session: Session) -> dict[str, Any]:
    """Named links, to find one's own on the axis: GB/s in one direction."""
    paths = {name: CONF / "link" / f"{name}.yaml" for name in config_names("link")}
    return {
        "links": {
            name: float(OmegaConf.select(OmegaConf.load(path), "bandwidth")) / GB
            for name, path in paths.items()
        }
    }


def fastest(record: Record) -> pd.DataFrame:
    """The fastest M of each method and bandwidth."""
    return bandwidth.fastest(record.rows)


def summary(record: Record) -> str:
    """Where each method leaves its own best, and PipeFusion."""
    return "\n".join(bandwidth.sentences(bandwidth.crossings(record.rows)))


BANDWIDTH = Study(
    "bandwidth",
    measure,
    ("model", "resolution", "devices", "bandwidth", "method", "patches", "predicted_latency_s", "status"),
    "PREDICTED latency by the bandwidth of the links, the fastest M",
    grid=runs,
    place=place_at_link,
    group=same_method,
    facts=facts,
    shown=fastest,
    summary=summary,
    check=check_costs,
)
