"""`measure=worlds`: the same runs in the three worlds, in turn: wall clock, virtual time, and the planned time.

Rounds alternate between worlds, so that a drift of the machine's speed touches all of them; every repeat is a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace

import pandas as pd

from analysis.presentation.columns import Column, column
from analysis.records.study import Record
from experiments.config import ClusterConfig, LatencyConfig, RunConfig
from experiments.errors import ConfigError, RunFailed, check_known, config_names
from experiments.grid import GridConfig, cluster_config, expand
from experiments.journal import Row
from experiments.methods import METHODS
from experiments.runs import launch
from experiments.session import Session
from experiments.study import Cell, Study
from pipefusion.core.domain import Count, PatchCounts

WORLDS = ("local", "sim", "plan")


@dataclass
class WorldsConfig(GridConfig):
    """`plan`: the cluster that describes this machine. Its links are also those of the simulated world."""

    name: str = "worlds"
    rounds: Count = 3
    methods: list[str] = field(default_factory=lambda: list(METHODS))
    patches: list[PatchCounts] = field(default_factory=lambda: [4])
    plan: str = "cpu"


def runs(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """Each method on what describes this machine, which decides two of the worlds."""
    yield from expand(replace(cfg, cluster=cluster_config(cfg.measure.plan)), cfg.measure)


def measure(cell: Cell, session: Session) -> list[Row]:
    """A row per world and round: its seconds. The planned ones repeat exactly, and are there once."""
    here, rows = cell.cfg.cluster, []
    sim = ClusterConfig(name="sim", world="sim", topology=here.topology)
    clusters = dict(zip(WORLDS, (ClusterConfig(device="cpu"), sim, here), strict=True))
    once = LatencyConfig(repeats=1, warmup_runs=1, memory=False, images=False)
    quiet = replace(cell.cfg, measure=once, log=replace(cell.cfg.log, progress=False))
    for index in range(cell.cfg.measure.rounds):
        for world, cluster in clusters.items():
            if world == "plan" and index:
                continue
            record = launch.execute(
                replace(quiet, cluster=cluster), session.folder / world / cell.cfg.method.name
            )
            if record["status"] != "ok":
                raise RunFailed(record["status"], f"in {world}: {record['reason']}")
            rows.append({"world": world, "repeat": index, "latency_s": record["latency_s"]["median"]})
    return rows


def ratios(record: Record) -> pd.DataFrame:
    """One row per method: the median of each world, and what the others give over the wall clock."""
    ran = record.rows[record.rows.status == "ok"]
    wide = ran.pivot_table("latency_s", "method", "world", "median", sort=False).reindex(columns=WORLDS)
    wide = wide.rename(columns=lambda world: f"{world}_s").rename_axis(columns=None).reset_index()
    return wide.assign(sim_ratio=wide.sim_s / wide.local_s, plan_ratio=wide.plan_s / wide.local_s)


def check_plan(cfg: RunConfig, session: Session) -> None:
    """Raises ConfigError for a cluster that does not exist or has no costs."""
    check_known(cfg, {"measure.plan": config_names("cluster")})
    if cluster_config(cfg.measure.plan).world != "plan":
        text = f"{cfg.measure.plan} has no costs; allowed: a cluster of named hardware"
        raise ConfigError("measure.plan", text)


MEDIANS: list[str | Column] = [column(f"{world}_s") for world in WORLDS]
THREE = Study(
    "worlds",
    measure,
    ("method", *MEDIANS, "sim_ratio", "plan_ratio"),
    "Seconds of the same runs in each world",
    grid=runs,
    shown=ratios,
    check=check_plan,
    single=tuple(one.name for one in fields(GridConfig) if one.name != "methods"),
    alone=True,
)
