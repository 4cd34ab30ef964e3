"""`measure=comparison`: all methods and their knobs beside each other, from the same noise.

Every setting of the grids is sampled in the simulated world, as `measure=distance` does it, and planned at full size on
named hardware, with the same S. Settings whose pictures are known to be the same, as serial's are those of an exact
method, are sampled once (`sampled_as`); `measure=quality` measures that they are. Where a run finds out W, or what a
step cache skips, every picture is a run by itself. Predicted hardware has no values to decide by: a cache is planned
with the share of steps that its pictures computed, and a W that is found out is not planned.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from statistics import mean

import pandas as pd

from analysis.methods import comparison
from analysis.records.study import Record
from experiments.config import LatencyConfig, RunConfig, read_prompts
from experiments.errors import ConfigError, check_known, config_names
from experiments.facts import borrowed
from experiments.grid import (
    SETTINGS,
    cluster_config,
    model_config,
    place,
    problem,
    run_problem,
    serial_reference,
)
from experiments.journal import Row
from experiments.methods import METHODS, caches, finds_warmup
from experiments.models.model import Model, resolved
from experiments.quality.settings import setting_name, stand_in
from experiments.session import Session
from experiments.studies import distance
from experiments.studies.scaling import planned_row
from experiments.study import Cell, Study, model_and_size
from pipefusion.core.checks import AUTO
from pipefusion.core.domain import Grid, Pixels

COUNTED = ("patches", "warmup")
"""Settings with a column of their own in every table; the others are knobs."""


@dataclass
class PlansConfig:
    """The model, sizes and clusters that settings are planned for."""

    name: str = "plans"
    latency_model: str = "pixart_alpha"
    latency_resolutions: Grid[Pixels] = field(default_factory=lambda: [1024, 2048])
    latency_clusters: list[str] = field(
        default_factory=lambda: ["l40_pcie", "a100_nvlink", "h100_nvlink", "l20_pcie_ethernet"]
    )


@dataclass
class ComparisonConfig(PlansConfig, distance.DistanceConfig):
    """The grids, which are sampled and planned."""

    name: str = "comparison"


def runs(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """Every setting sampled, then every setting planned; those of a step cache are both in one."""
    plans = PlansConfig(**{one.name: getattr(cfg.measure, one.name) for one in fields(PlansConfig)[1:]})
    sampled = list(distance.runs(cfg, session))
    for one in sampled:
        yield replace(one, measure=plans) if cached(one) else one
    yield from planned_runs([one for one in sampled if not decides(one)], plans)


def planned_runs(sampled: Sequence[RunConfig], plans: PlansConfig) -> Iterator[RunConfig]:
    """The settings on every cluster and at every size, each once."""
    for name in plans.latency_clusters:
        for px in plans.latency_resolutions:
            model = replace(model_config(plans.latency_model), resolution=px)
            there = [
                replace(one, cluster=cluster_config(name), model=model, measure=LatencyConfig())
                for one in sampled
            ]
            usual = [
                replace(one, guidance_scale=None, scheduler="shipped", prompt="a picture", seed=0)
                for one in there
            ]
            yield from {repr(one): one for one in usual}.values()


def decides(cfg: RunConfig) -> bool:
    """Whether values decide in the run what is computed: a W that is found out, or a step cache."""
    return finds_warmup(cfg.method) or cached(cfg)


def cached(cfg: RunConfig) -> bool:
    """Whether there is a step cache, and its pictures tell what is planned."""
    return caches(vars(cfg.method)) and not finds_warmup(cfg.method)


def first_columns(cfg: RunConfig) -> Row:
    """The first columns of a cell's rows, with its knobs in words."""
    return place(cfg) | {"knobs": knobs(cfg)}


def knobs(cfg: RunConfig) -> str:
    """What of a method's settings is not its default, besides M and W: `stride 2, time shift`."""
    own, usual = vars(cfg.method), vars(METHODS[cfg.method.name].Config())
    changed = {
        key: own[key]
        for key in SETTINGS.values()
        if key in own and key not in COUNTED and own[key] != usual[key]
    }
    if finds_warmup(cfg.method):
        changed = {"warmup": AUTO, "warmup_threshold": own.get("warmup_threshold")} | changed
    words = [key.replace("_", " ") + ("" if value is True else f" {value}") for key, value in changed.items()]
    return ", ".join(words)


def measure(cell: Cell, session: Session) -> list[Row]:
    """A row for each picture, or the one of a plan; of a step cache a row for each picture and for each plan."""
    if isinstance(cell.cfg.measure, LatencyConfig):
        return [plan_row(cell.cfg, session)]
    found = stand_in(cell.cfg)
    measured = one_by_one if decides(found) else distance.measure
    rows = measured(replace(cell, cfg=found), session)
    rows = [row | {"sampled_as": setting_name(found)} for row in rows]
    return rows + cache_plans(cell.cfg, rows, session) if cached(cell.cfg) else rows


def plan_row(cfg: RunConfig, session: Session) -> Row:
    """Predicted seconds and bytes of a setting, and what the machine's costs are borrowed from."""
    return planned_row(cfg, session) | {"borrowed": ", ".join(borrowed(cfg.cluster, cfg.devices))}


def cache_plans(cfg: RunConfig, pictures: list[Row], session: Session) -> list[Row]:
    """Plans that compute as many of the steps that may be skipped as the pictures did on average, to whole steps."""
    always = 1 + (1 if METHODS[cfg.method.name].exact else max(cfg.method.warmup, 1))
    computed, open_steps = round(mean(row["computed_steps"] for row in pictures)) - always, cfg.steps - always
    method = replace(cfg.method, cache_computed=computed / open_steps if open_steps > 0 else 1.0)
    rows = []
    for one in planned_runs([replace(cfg, method=method)], cfg.measure):
        model = session.model(one.model)
        one, reason = resolved(one, model), problem(one, model)
        skipped = {"status": "skipped", "reason": reason}
        where = {key: place(one)[key] for key in ("cluster", "model", "resolution", "height", "width")}
        rows.append(
            where | {"guidance_scale": one.guidance_scale} | (skipped if reason else plan_row(one, session))
        )
    return rows


def one_by_one(cell: Cell, session: Session) -> list[Row]:
    """A row for each picture, which is decided and compared with serial's by itself."""
    model, rows = session.model(cell.cfg.model), []
    for picture, (prompt, seed) in enumerate(zip(read_prompts(cell.cfg), cell.cfg.seed, strict=True)):
        alone = replace(cell.cfg, prompt=[prompt], seed=[seed], measure=distance.DistanceConfig())
        serial = serial_reference(alone)
        want = session.once(repr(serial), partial(distance.latents, serial, session))
        got, ledger = session.once(("decided", repr(alone)), partial(distance.simulate, alone, session))
        (row,) = distance.compare(got, want, [prompt], model.facts.get("frame_factor", 1))
        found = {"found_warmup": ledger.warmup, "computed_steps": ledger.computed_steps}
        rows.append(row | {"picture": picture} | found)
    return rows


def why_not(cfg: RunConfig, model: Model) -> str | None:
    """What keeps a setting from being planned, or the one that it is sampled as from this model."""
    planned = isinstance(cfg.measure, LatencyConfig)
    return problem(cfg, model) if planned else run_problem(stand_in(cfg), model)


def same_work(cell: Cell) -> Hashable:
    """Cells that are compared with the same pictures, or planned with the same costs."""
    planned = isinstance(cell.cfg.measure, LatencyConfig)
    return model_and_size(cell) if planned else distance.same_serial(cell)


def check(cfg: RunConfig, session: Session) -> None:
    """What `measure=distance` refuses, a machine without costs, and one that samples nothing. Raises ConfigError."""
    if cfg.cluster.world == "plan":
        raise ConfigError("cluster", f"{cfg.cluster.name} samples no pictures; allowed: sim, local")
    distance.check(cfg, session)
    check_known(
        cfg,
        {
            "measure.latency_model": config_names("model"),
            "measure.latency_clusters": config_names("cluster"),
        },
    )
    for name in cfg.measure.latency_clusters:
        if cluster_config(name).world != "plan":
            text = f"{name} has no costs; allowed: clusters of named hardware"
            raise ConfigError("measure.latency_clusters", text)


def table(record: Record) -> pd.DataFrame:
    """A setting a row on each machine."""
    return comparison.joined(record.rows)


COMPARISON = Study(
    "comparison",
    measure,
    (
        *("cluster", "resolution", "method", "devices", "patches", "warmup", "knobs", "steps"),
        *("relative_error", "psnr_db", "predicted_latency_s", "sent_bytes", "peak_bytes", "status"),
    ),
    "MEASURED distance of the small model, PREDICTED latency and bytes of the large one",
    grid=runs,
    problem=why_not,
    place=first_columns,
    group=same_work,
    shown=table,
    check=check,
)
