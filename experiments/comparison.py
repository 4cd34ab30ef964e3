"""`measure=comparison`: all methods and their knobs beside each other, from the same noise.

Every setting of the grids is sampled in the simulated world, as `measure=distance` does it, and planned at full size on
named hardware, with the same S. Settings whose pictures are known to be the same, as serial's are those of an exact
method, are sampled once (`sampled_as`); `measure=quality` measures that they are. Where a run finds out W, or what a
step cache skips, every picture is a run by itself, and there is no plan: predicted hardware has no values to decide by.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd

from analysis import comparison
from analysis.study import Record
from experiments import distance
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
from experiments.models import Model
from experiments.quality.settings import setting_name, stand_in
from experiments.scaling import planned_row
from experiments.session import Session
from experiments.study import Cell, Study, model_and_size
from pipefusion.core.checks import AUTO
from pipefusion.core.domain import Grid, Pixels

COUNTED = ("patches", "warmup")
"""Settings with a column of their own in every table; the others are knobs."""


@dataclass
class ComparisonConfig(distance.DistanceConfig):
    """The grids, which are sampled, and the model, sizes and clusters that they are planned for."""

    name: str = "comparison"
    latency_model: str = "pixart_alpha"
    latency_resolutions: Grid[Pixels] = field(default_factory=lambda: [1024, 2048])
    latency_clusters: list[str] = field(
        default_factory=lambda: ["l40_pcie", "a100_nvlink", "h100_nvlink", "l20_pcie_ethernet"]
    )


def runs(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """Every setting sampled, then every setting planned."""
    sampled = list(distance.runs(cfg, session))
    yield from sampled
    usual = [
        replace(one, guidance_scale=None, scheduler="shipped", prompt="a picture", seed=0)
        for one in sampled
        if not decides(one)
    ]
    for name in cfg.measure.latency_clusters:
        for px in cfg.measure.latency_resolutions:
            model = replace(model_config(cfg.measure.latency_model), resolution=px)
            there = [replace(one, model=model, measure=LatencyConfig()) for one in usual]
            planned = [replace(one, cluster=cluster_config(name)) for one in there]
            yield from {repr(one): one for one in planned}.values()


def decides(cfg: RunConfig) -> bool:
    """Whether values decide in the run what is computed: a W that is found out, or a step cache."""
    return finds_warmup(cfg.method) or caches(vars(cfg.method))


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
    """A row for each picture, or the one of a plan."""
    if isinstance(cell.cfg.measure, LatencyConfig):
        parts = borrowed(cell.cfg.cluster, cell.cfg.devices)
        return [planned_row(cell.cfg, session) | {"borrowed": ", ".join(parts)}]
    found = stand_in(cell.cfg)
    measured = one_by_one if decides(found) else distance.measure
    rows = measured(replace(cell, cfg=found), session)
    return [row | {"sampled_as": setting_name(found)} for row in rows]


def one_by_one(cell: Cell, session: Session) -> list[Row]:
    """A row for each picture, which is decided and compared with serial's by itself."""
    model, rows = session.model(cell.cfg.model), []
    for picture, (prompt, seed) in enumerate(zip(read_prompts(cell.cfg), cell.cfg.seed, strict=True)):
        alone = replace(cell.cfg, prompt=[prompt], seed=[seed])
        serial = serial_reference(alone)
        want = session.once(repr(serial), partial(distance.latents, serial, session))
        got, ledger = distance.simulate(alone, session)
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
