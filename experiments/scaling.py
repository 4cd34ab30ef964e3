"""`measure=scaling`: predicted latency and peak memory against N, on several clusters, beside what was published.

The grid is that of `measure=plan`, planned for each of `measure.models` on each of `measure.clusters`; `cluster`
itself is not looked at, and `model` only where `measure.models` is empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.check import check_square
from experiments.choose import PlanConfig, best, check_plan, planned_rows, points, resolutions_of
from experiments.compose import compose_one
from experiments.config import ClusterConfig, RunConfig, as_dict, from_hydra
from experiments.environment import provenance
from experiments.errors import ConfigError, config_names, nearest
from experiments.models import open_model, resolved
from experiments.params import facts_of, model_config
from experiments.plan import empty_inputs
from experiments.predict import calibration_rows
from experiments.published import Target, targets
from experiments.records import write_json
from pipefusion.core.domain import Grid, Guidance, Pixels, Steps, Warmups

ALL_STEPS = "S"
OWN = {"model.resolution": "resolutions", "steps": "steps", "guidance_scale": "guidance_scale"}
"""A key of a run -> the key of `ModelGrid` that it comes from."""


@dataclass
class ModelGrid:
    """A file of conf/model, and what differs from the other models; null is the value for all."""

    model: str = ""
    steps: Steps | None = None
    resolutions: Grid[Pixels] | None = None
    guidance_scale: Guidance | None = None


@dataclass
class ScalingConfig(PlanConfig):
    """The grid of a plan, the clusters to plan it on, and the models; none is the run's own.

    In `warmups`, `S` is as many as there are steps.
    """

    name: str = "scaling"
    clusters: Grid[str] = field(default_factory=list)
    models: list[ModelGrid] = field(default_factory=list)
    warmups: Grid[Warmups] = field(default_factory=lambda: [1])


def check_scaling(cfg: RunConfig) -> None:
    """Raises ConfigError for a model or cluster that does not exist, and for what `check_plan` refuses."""
    options: ScalingConfig = cfg.measure
    for warmup in options.warmups:
        if warmup != ALL_STEPS and not isinstance(warmup, int):
            raise ConfigError(
                "measure.warmups", f"{warmup!r} is no number of steps; allowed: 0 or more, {ALL_STEPS}"
            )
    check_names([grid.model for grid in options.models])
    for index, one in enumerate(each_model(cfg)):
        check_square(one)
        try:
            for name in options.clusters:
                check_plan(on(one, name))
        except ConfigError as error:
            if not options.models or error.key not in OWN:
                raise
            raise ConfigError(f"measure.models.{index}.{OWN[error.key]}", error.message) from None


def check_names(names: list[str]) -> None:
    """Raises ConfigError for a model that does not exist, or is there twice: rows are told apart by it."""
    known = config_names("model")
    for index, name in enumerate(names):
        key = f"measure.models.{index}.model"
        if name not in known:
            raise ConfigError(key, f"{name!r} is unknown{nearest(name, known)}; allowed: {', '.join(known)}")
        if name in names[:index]:
            raise ConfigError(key, f"{name} is there already; allowed: each model once")


def each_model(cfg: RunConfig) -> Iterator[RunConfig]:
    """The configuration of every model that is planned, `S` among its warm-ups replaced by its steps."""
    options: ScalingConfig = cfg.measure
    for grid in options.models or [ModelGrid()]:
        steps = cfg.steps if grid.steps is None else grid.steps
        warmups = dict.fromkeys(steps if warmup == ALL_STEPS else warmup for warmup in options.warmups)
        resolutions = options.resolutions if grid.resolutions is None else grid.resolutions
        scale = cfg.guidance_scale if grid.guidance_scale is None else grid.guidance_scale
        measure = replace(options, warmups=[*warmups], resolutions=resolutions)
        model = model_config(grid.model) if grid.model else cfg.model
        yield replace(cfg, model=model, steps=steps, guidance_scale=scale, measure=measure)


def on(cfg: RunConfig, cluster: str) -> RunConfig:
    """The configuration on another cluster."""
    return replace(cfg, cluster=from_hydra(compose_one([f"cluster={cluster}"])).cluster)


def scaling(cfg: RunConfig, out: Path) -> str:
    """Plan the grid on every cluster into `out`/scaling.json; returns the run's status."""
    started = time.time()
    models = list(each_model(cfg))
    each = [on(one, name) for one in models for name in cfg.measure.clusters]
    rows = fastest_marked(planned_rows([point for one in each for point in points(one)], cfg.measure.workers))
    alone = {"model": models[0].model.name, "steps": models[0].steps} if len(models) == 1 else {}
    record = {
        "predicted": True,
        **alone,
        "models": {one.model.name: model_facts(one) for one in models},
        "clusters": {one.cluster.name: facts(one.cluster) for one in each},
        "rows": rows,
        "published": [asdict(target) | {"cluster": name} for name, target in beside(each)],
        "config": as_dict(cfg),
        **provenance(),
        "seconds": time.time() - started,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "scaling.json", record)
    print(f"{len(rows)} points predicted in {record['seconds']:.1f} s")
    print(out / "scaling.json")
    return "ok"


def fastest_marked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in order, and in each whether it is the fastest setting (M) of its method, N and W that fits."""
    keys = ["model", "cluster", "resolution", "method", "devices", "warmup", "patches", "split"]
    table = pd.DataFrame(rows).sort_values(keys, ignore_index=True)
    table["fastest"] = False
    for _, part in table.groupby(["model", "cluster", "resolution", "warmup"], dropna=False):
        table.loc[best(part).index, "fastest"] = True
    plain = table.astype(object).where(table.notna(), None).to_dict("records")
    whole = [str(key) for key in table if key in ("patches", "warmup") or str(key).endswith("_bytes")]
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


def model_facts(cfg: RunConfig) -> dict[str, Any]:
    """What a reader of the predictions asks about a model; `branches` is 2 with guidance, which doubles the batch."""
    model = open_model(cfg.model)
    scale = resolved(cfg, model).guidance_scale
    assert scale is not None
    branches = empty_inputs(model.shape, 1, scale)[1].branches
    sizes = {key: value for key, value in facts_of(model).items() if key not in ("resolution", "tokens")}
    sizes |= {"steps": cfg.steps, "guidance_scale": scale, "branches": branches}
    return sizes | {"resolutions": [size or model.resolution for size in resolutions_of(cfg)]}


def beside(each: list[RunConfig]) -> Iterator[tuple[str, Target]]:
    """The published rows of the same model, hardware and settings, each with the cluster it stands beside."""
    for target in targets():
        for one in each:
            if is_like(target, one) and same_hardware(target, one.cluster):
                yield one.cluster.name, target


def is_like(target: Target, cfg: RunConfig) -> bool:
    """Whether a published row is of the grid, as far as the model and the method go."""
    options: ScalingConfig = cfg.measure
    return (
        target.model == cfg.model.name
        and target.steps == cfg.steps
        and target.method in options.methods
        and not target.parallel
        and (target.method == "serial" or target.devices in options.devices)
        and target.resolution in [size or open_model(cfg.model).resolution for size in resolutions_of(cfg)]
        and (target.warmup is None or target.warmup in options.warmups)
        and (target.split is None or target.split in options.splits)
        and target.patches in ([], [*options.patches])
    )


def same_hardware(target: Target, cluster: ClusterConfig) -> bool:
    """A cluster is called after its device, link and network; within a node the network makes no difference."""
    inside = target.devices <= cluster.topology.devices_per_node
    return target.cluster == cluster.name or (inside and cluster.name.startswith(f"{target.cluster}_"))
