"""`measure=worlds`: the same runs in the three worlds, in turn: wall clock, virtual time, and the planned time.

Rounds alternate between worlds, so that a drift of the machine's speed touches all of them; every repeat is kept.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments import launch
from experiments.check import check_method, check_model, check_values
from experiments.compose import compose_one
from experiments.config import ClusterConfig, LatencyConfig, RunConfig, as_dict, from_hydra
from experiments.environment import provenance
from experiments.errors import ConfigError, check_known, config_names
from experiments.methods import METHODS
from experiments.records import write_json
from pipefusion.core.domain import Count, Grid, Patches


@dataclass
class WorldsConfig:
    """`plan`: the cluster that describes this machine. Its links are also those of the simulated world."""

    name: str = "worlds"
    rounds: Count = 3
    methods: Grid[str] = field(default_factory=lambda: list(METHODS))
    patches: Patches = 4
    plan: str = "cpu"


def check_worlds(cfg: RunConfig) -> None:
    """Names that do not exist, methods that cannot run so. Raises ConfigError."""
    options: WorldsConfig = cfg.measure
    check_values(cfg)
    check_known(cfg, {"measure.methods": METHODS, "measure.plan": config_names("cluster")})
    here = from_hydra(compose_one([f"cluster={options.plan}"])).cluster
    if here.world != "plan":
        raise ConfigError(
            "measure.plan", f"{options.plan} has no costs; allowed: a cluster of named hardware"
        )
    for name in options.methods:
        run_of(cfg, name, here)


def worlds(cfg: RunConfig, out: Path) -> str:
    """Run all methods in all worlds into directories below `out`, and print the ratios; returns the run's status."""
    options: WorldsConfig = cfg.measure
    here = from_hydra(compose_one([f"cluster={options.plan}"])).cluster
    clusters = {
        "local": ClusterConfig(device="cpu"),
        "sim": ClusterConfig(name="sim", world="sim", topology=here.topology),
        "plan": here,
    }
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in options.methods}
    for index in range(options.rounds):
        for name in options.methods:
            for world, cluster in clusters.items():
                if world == "plan" and index:
                    continue  # it repeats exactly
                one = run_of(cfg, name, cluster)
                record = launch.execute(one, out / world / name)
                if record["status"] != "ok":
                    print(f"{name} in {world}: {record['status']}: {record['reason']}", file=sys.stderr)
                    return "failed"
                seconds[name].setdefault(world, []).extend(record["latency_s"]["repeats"])
    rows = [row_of(name, times) for name, times in seconds.items()]
    record = {"rows": rows, "devices": cfg.devices, "config": as_dict(cfg)}
    write_json(out / "worlds.json", record | provenance())
    show(rows, cfg, Console() if sys.stdout.isatty() else Console(width=110))
    print(out / "worlds.json")
    return "ok"


def run_of(cfg: RunConfig, name: str, cluster: ClusterConfig) -> RunConfig:
    """One method's run in one world, timed once after one warm-up. Raises ConfigError if it cannot run."""
    module = METHODS[name]
    keys = {"patches": cfg.measure.patches} if module.has("patches") else {}
    measure = LatencyConfig(repeats=1, warmup_runs=1, memory=False, images=False)
    devices = 1 if name == "serial" else cfg.devices
    log = replace(cfg.log, progress=False)
    one = replace(
        cfg, method=module.Config(**keys), cluster=cluster, measure=measure, devices=devices, log=log
    )
    problem: ConfigError | None = check_method(one, check_model(one))
    if problem:
        raise problem
    return one


def row_of(name: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """A method's repeats, and what the other worlds say over the wall clock, as ratios of medians."""
    middle = {world: statistics.median(values) for world, values in times.items()}
    ratios = {f"{world}_ratio": middle[world] / middle["local"] for world in ("sim", "plan")}
    return {"method": name, "seconds": times, **ratios}


def show(rows: list[dict[str, Any]], cfg: RunConfig, console: Console) -> None:
    """The table for the terminal."""
    title = f"{cfg.model.name}, {cfg.devices} ranks, {cfg.threads} thread a rank: seconds in each world"
    table = Table(title=title, title_justify="left")
    for heading in ("method", "local s", "sim s", "plan s", "sim / local", "plan / local"):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for row in rows:
        middle = [statistics.median(row["seconds"][world]) for world in ("local", "sim", "plan")]
        cells = [f"{value:.3f}" for value in middle]
        table.add_row(row["method"], *cells, f"{row['sim_ratio']:.3f}", f"{row['plan_ratio']:.3f}")
    console.print(table)
