"""The table of freshness: what every self-attention of every method sees, by age, over a grid of N, M and W."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models import open_model, scheduler_of
from experiments.staleness.probe import Seen, probe
from experiments.staleness.settings import Setting, settings_of
from pipefusion.core.domain import Devices, Domain, Grid, Patches, Warmup


@dataclass
class FreshnessConfig:
    """`model` is a file of conf/model, whose sizes alone matter; every method runs with each N, M and W it has."""

    model: str = "pixart_tiny"
    steps: Annotated[int, Domain(2, 10_000)] = 8
    devices: Grid[Devices] = field(default_factory=lambda: [4, 2])
    patches: Grid[Patches] = field(default_factory=lambda: [4, 8])
    warmups: Grid[Warmup] = field(default_factory=lambda: [1, 0])


def freshness(options: FreshnessConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row a self-attention, and one a setting: `ok` or `skipped` with its reason."""
    model = open_model(model_config(options.model))
    view, scheduler = model.view(), scheduler_of(model, "shipped", options.steps)
    rows: list[dict[str, Any]] = []
    probes: list[dict[str, Any]] = []
    for setting in grid(options):
        problem = setting.problem(model.shape, options.steps)
        reason = None if problem is None else f"{problem.key}={problem.message}"
        probes.append(setting.columns() | {"status": "skipped" if problem else "ok", "reason": reason})
        if problem is None:
            rows += [setting.columns() | row for row in freshness_rows(probe(view, setting, scheduler))]
    return rows, probes


def grid(options: FreshnessConfig) -> list[Setting]:
    """Every setting of every method."""
    return [
        setting
        for method in METHODS
        for setting in settings_of(
            method, [1] if method == "serial" else options.devices, options.patches, options.warmups
        )
    ]


def freshness_rows(seen: list[Seen]) -> Iterator[dict[str, Any]]:
    """One row a self-attention, by rank and in the order of its jobs; `age_K` and `never` count image tokens."""
    for one in sorted(seen, key=lambda one: (one.place.rank, one.job, one.place.layer)):
        rank, step, rows, layer = one.place
        place = {"rank": rank, "job": one.job, "step": step}
        place |= {"row_start": rows.start, "row_stop": rows.stop, "layer": layer, "tokens": one.tokens}
        yield place | {f"age_{age}": count for age, count in enumerate(one.ages)} | {"never": one.never}
