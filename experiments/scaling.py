"""`measure=scaling`: predicted latency and peak memory against N, on several clusters, beside what was published.

The grid is that of `measure=plan`, planned for each of `measure.clusters`; `cluster` itself is not looked at.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.check import ConfigError
from experiments.choose import PlanConfig, best, check_plan, planned_rows, points, resolutions_of
from experiments.compose import compose_one
from experiments.config import CONF, ClusterConfig, RunConfig, as_dict, from_hydra
from experiments.environment import versions
from experiments.predict import calibration_rows
from experiments.published import Target, targets
from experiments.records import git_commit, write_json


@dataclass
class ScalingConfig(PlanConfig):
    """The grid of a plan, and the clusters to plan it on."""

    name: str = "scaling"
    clusters: list[str] = field(default_factory=list)


def check_scaling(cfg: RunConfig) -> None:
    """Raises ConfigError for a cluster that does not exist or has no costs, and for what `check_plan` refuses."""
    if not cfg.measure.clusters:
        raise ConfigError(
            "measure.clusters", "[] leaves nothing to plan; allowed: clusters of named hardware"
        )
    for name in cfg.measure.clusters:
        check_plan(on(cfg, name))


def on(cfg: RunConfig, cluster: str) -> RunConfig:
    """The configuration on another cluster."""
    return replace(cfg, cluster=from_hydra(compose_one([f"cluster={cluster}"])).cluster)


def scaling(cfg: RunConfig, out: Path) -> str:
    """Plan the grid on every cluster into `out`/scaling.json; returns the run's status."""
    started = time.time()
    each = [on(cfg, name) for name in cfg.measure.clusters]
    rows = fastest_marked(planned_rows([point for one in each for point in points(one)], cfg.measure.workers))
    record = {
        "predicted": True,
        "model": cfg.model.name,
        "steps": cfg.steps,
        "clusters": {one.cluster.name: facts(one.cluster) for one in each},
        "rows": rows,
        "published": [asdict(target) | {"cluster": name} for name, target in beside(cfg, each)],
        "config": as_dict(cfg),
        "command": shlex.join(sys.argv),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(CONF.parent),
        "versions": versions(),
        "seconds": time.time() - started,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "scaling.json", record)
    print(f"{len(rows)} points predicted in {record['seconds']:.1f} s")
    print(out / "scaling.json")
    return "ok"


def fastest_marked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in order, and in each whether it is the fastest setting (M) of its method and N that fits."""
    keys = ["cluster", "resolution", "method", "devices", "patches"]
    table = pd.DataFrame(rows).sort_values(keys, ignore_index=True)
    table["fastest"] = False
    for _, part in table.groupby(["cluster", "resolution"]):
        table.loc[best(part).index, "fastest"] = True
    plain = table.astype(object).where(table.notna(), None).to_dict("records")
    whole = ("patches", "warmup", "peak_bytes", "kv_bytes", "sent_bytes", "missing_bytes")
    return [
        {str(key): int(v) if key in whole and v is not None else v for key, v in row.items()} for row in plain
    ]


def facts(cluster: ClusterConfig) -> dict[str, Any]:
    """What a reader of the predictions asks about a cluster."""
    hardware = cluster.hardware
    assert hardware is not None
    return {
        "device": hardware.name,
        "room_bytes": hardware.memory_bytes - hardware.reserved_bytes,
        "devices_per_node": cluster.topology.devices_per_node,
        "calibrated_on": calibration_rows(cluster),
    }


def beside(cfg: RunConfig, each: list[RunConfig]) -> Iterator[tuple[str, Target]]:
    """The published rows of the same hardware and settings, each with the cluster it stands beside."""
    options: ScalingConfig = cfg.measure
    for target in targets():
        alike = (
            target.model == cfg.model.name
            and target.steps == cfg.steps
            and target.method in options.methods
            and target.resolution in resolutions_of(cfg)
            and (target.warmup is None or target.warmup in options.warmups)
            and (target.split is None or target.split in options.splits)
            and target.patches in ([], [*options.patches])
        )
        for one in each:
            if alike and same_hardware(target, one.cluster):
                yield one.cluster.name, target


def same_hardware(target: Target, cluster: ClusterConfig) -> bool:
    """A cluster is called after its device, link and network; within a node the network makes no difference."""
    inside = target.devices <= cluster.topology.devices_per_node
    return target.cluster == cluster.name or (inside and cluster.name.startswith(f"{target.cluster}_"))
