"""`measure=scaling`: predicted latency and peak memory of a grid on named hardware, beside what was published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from analysis.records.study import Record
from experiments.config import ClusterConfig, RunConfig
from experiments.errors import ConfigError
from experiments.facts import cluster_facts, model_facts
from experiments.grid import GridsConfig, cluster_config
from experiments.journal import Row
from experiments.models.model import resolved
from experiments.published import Target, targets
from experiments.runs.plan import Planned, plan
from experiments.runs.report import held_parameters
from experiments.session import Session, guidance_branches
from experiments.study import Cell, Study
from pipefusion.core.domain import Threads

PLACE = ["model", "cluster", "height", "width", "warmup"]
BEST = ["method", "devices", "parallel"]


@dataclass
class ScalingConfig(GridsConfig):
    """The grid. Without `clusters` it is planned on `cluster`; `workers` null: a process for each core."""

    name: str = "scaling"
    workers: Threads | None = None


def measure(cell: Cell, session: Session) -> list[Row]:
    """The one row of a run."""
    return [planned_row(cell.cfg, session)]


def planned_row(cfg: RunConfig, session: Session) -> Row:
    """Predicted seconds and bytes of a run: the most of any device, each on its own; `oom` if one does not hold it."""
    return outcome(plan(cfg, session))


def outcome(planned: Planned) -> Row:
    """Status, seconds and bytes of a planned run."""
    return {"status": "ok" if planned.latency_s else "oom", "reason": planned.reason} | most(planned)


def most(planned: Planned) -> Row:
    """Seconds and bytes of the busiest and the fullest device, and what the busiest one waits."""
    ranks, fits = planned.ranks, planned.latency_s is not None
    busiest = max(ranks, key=lambda rank: rank.compute_s)
    parts = [
        rank.dit for rank in {id(rank.meter): rank for rank in reversed(ranks)}.values()
    ]  # one of those alike
    return {
        "predicted_latency_s": planned.latency_s,
        "compute_s": busiest.compute_s if fits else None,
        "wait_s": max(rank.wait_s for rank in ranks) if fits else None,
        "busiest_wait_s": busiest.wait_s if fits else None,
        "peak_bytes": planned.peak_bytes,
        "param_bytes": max(sum(held_parameters(dit).values()) for dit in parts),
        "kv_bytes": max(rank.buffer_bytes["kv"] for rank in ranks),
        "sent_bytes": max(rank.sent_bytes for rank in ranks),
        "missing_bytes": planned.missing_bytes,
    }


def fastest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, and in each whether it is the fastest setting (M, split) of its method, product and W that fits."""
    ran = rows[rows.status.isin(["ok", "oom"])].sort_values(["predicted_latency_s", "peak_bytes"])
    first = ran.drop_duplicates([*PLACE, *BEST]).index
    return rows.assign(fastest=rows.index.isin(first))


def check_costs(cfg: RunConfig, session: Session) -> None:
    """Raises ConfigError for a cluster without costs."""
    grids = cfg.measure.each() if isinstance(cfg.measure, GridsConfig) else [cfg.measure]
    for grid in grids:
        for cluster in [cluster_config(name) for name in grid.clusters] or [cfg.cluster]:
            if cluster.world != "plan":
                text = f"{cluster.name} has no costs; allowed: a cluster of named hardware"
                raise ConfigError("measure.clusters" if grid.clusters else "cluster", text)


def facts(cfg: RunConfig, rows: pd.DataFrame, session: Session) -> dict[str, Any]:
    """Clusters and models as a reader of the predictions asks about them, and the published rows beside them."""
    cells = list(SCALING.grid(cfg, session))
    clusters = {one.cluster.name: one.cluster for one in cells}
    models: dict[str, Any] = {}
    for one in {repr((one.model, one.steps, one.guidance_scale)): one for one in cells}.values():
        name = one.model.name
        try:
            model = session.model(one.model)
            branches = guidance_branches(resolved(one, model), model.shape)
        except ValueError:  # a size that the model does not have: its rows say so
            continue
        if name not in models:
            models[name] = model_facts(model) | {"steps": one.steps, "resolutions": []}
        models[name]["branches"] = branches
        if model.resolution not in models[name]["resolutions"]:
            models[name]["resolutions"].append(model.resolution)
    beside = [asdict(target) | {"cluster": name} for name, target in published_beside(rows, clusters)]
    return {
        "predicted": True,
        "models": models,
        "clusters": {name: cluster_facts(cluster) for name, cluster in clusters.items()},
        "published": beside,
    }


def published_beside(rows: pd.DataFrame, clusters: dict[str, ClusterConfig]) -> Iterator[tuple[str, Target]]:
    """The published rows of the same model, hardware and settings as some row, each with the cluster it is beside."""
    for target in targets():
        same = (rows.model == target.model) & (rows.method == target.method) & (rows.steps == target.steps)
        same &= (rows.resolution == target.resolution) & (rows.devices == target.devices)
        for key in ("warmup", "split"):
            if getattr(target, key) is not None:
                same &= rows[key] == getattr(target, key)
        for name, part in rows[same].groupby("cluster", sort=False):
            searched = sorted(part.patches.dropna().unique())
            like = target.patches in ([], searched) and not target.parallel
            if like and same_hardware(target, clusters[str(name)]):
                yield str(name), target


def same_hardware(target: Target, cluster: ClusterConfig) -> bool:
    """A cluster is called after its device, link and network; within a node the network makes no difference."""
    inside = target.devices <= cluster.topology.devices_per_node
    return target.cluster == cluster.name or (inside and cluster.name.startswith(f"{target.cluster}_"))


def leaders(record: Record) -> pd.DataFrame:
    """The fastest setting of each method, product and W."""
    return record.rows[record.rows.fastest]


SCALING = Study(
    "scaling",
    measure,
    (
        *("cluster", "model", "resolution", "method", "parallel", "patches", "warmup"),
        *("predicted_latency_s", "wait_s", "peak_bytes", "status"),
    ),
    "Predicted, the fastest setting of each method and product",
    derived=fastest,
    facts=facts,
    shown=leaders,
    check=check_costs,
)
