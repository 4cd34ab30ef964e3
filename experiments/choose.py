"""`measure=plan`: methods x devices x resolutions of one model on one cluster, and which of them to choose."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import groupby, product
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.check import check_model, check_values
from experiments.config import RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, check_known
from experiments.launch import resolved
from experiments.methods import METHODS, problem_of
from experiments.models import Model, open_model
from experiments.plan import GIB, Planned, Planner
from experiments.records import write_csv, write_json
from experiments.report import held_parameters
from pipefusion.core.domain import Devices, Grid, Patches, Pixels, Threads, Warmup


@dataclass
class PlanConfig:
    """The grid, and serial on one device beside it. `resolutions` null: the model's own.

    `patches`, `warmups` and `splits` are tried where a method has them; `workers` null: a process for each core.
    """

    name: str = "plan"
    methods: Grid[str] = field(default_factory=lambda: list(METHODS))
    devices: Grid[Devices] = field(default_factory=lambda: [2, 4, 8])
    resolutions: Grid[Pixels] | None = None
    patches: Grid[Patches] = field(default_factory=lambda: [2, 4, 8, 16])
    warmups: Grid[Warmup] = field(default_factory=lambda: [1])
    splits: Grid[str] = field(default_factory=lambda: ["even"])
    workers: Threads | None = None


def check_plan(cfg: RunConfig) -> None:
    """Raises ConfigError for a cluster without costs, and for a grid with nothing in it."""
    if cfg.cluster.world != "plan":
        raise ConfigError("cluster", f"{cfg.cluster.name} has no costs; allowed: a cluster of named hardware")
    check_known(cfg, {"measure.methods": METHODS})
    for resolution in resolutions_of(cfg):
        model = replace(cfg.model, resolution=resolution)
        one = replace(cfg, model=model, devices=1)
        check_values(one)
        check_model(one)


def resolutions_of(cfg: RunConfig) -> list[int | None]:
    """In pixels of a side; None is the height and width of `cfg.model`, or what the model was made for."""
    return [*cfg.measure.resolutions] if cfg.measure.resolutions else [cfg.model.resolution]


def points(cfg: RunConfig) -> Iterator[RunConfig]:
    """Every run of the grid, serial once a resolution."""
    options: PlanConfig = cfg.measure
    for resolution, name, devices in product(resolutions_of(cfg), options.methods, options.devices):
        if name == "serial" and devices != options.devices[0]:
            continue
        tried: dict[str, list[Any]] = {
            "patches": options.patches,
            "warmup": options.warmups,
            "split": options.splits,
        }
        own = {key: values for key, values in tried.items() if METHODS[name].has(key)}
        for values in product(*own.values()):
            method = METHODS[name].Config(**dict(zip(own, values, strict=True)))
            model = replace(cfg.model, resolution=resolution)
            yield replace(cfg, model=model, method=method, devices=1 if name == "serial" else devices)


def choose(cfg: RunConfig, out: Path) -> str:
    """Plan the grid into `out`/plan.csv and plan.json, and print the ranking; returns the run's status."""
    started = time.time()
    rows = planned_rows(points(cfg), cfg.measure.workers)
    keys = ["height", "width", "method", "devices", "patches", "warmup", "split"]
    table = pd.DataFrame(rows).drop(columns=["model", "steps", "cluster"])
    table = table.sort_values(keys, ignore_index=True)
    seconds = time.time() - started
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "plan.csv", table)
    record = {"predicted": True, "config": as_dict(cfg), "seconds": seconds, "points": len(table)}
    write_json(out / "plan.json", record | provenance())
    console = Console() if sys.stdout.isatty() else Console(width=150)
    for (height, width), part in table.groupby(["height", "width"], sort=True):
        size = f"{height} px" if height == width else f"{height} x {width} px"
        console.print(rich_ranking(part, f"{cfg.model.name} at {size} on {cfg.cluster.name}, predicted"))
        console.print(verdict(part), highlight=False)
    skipped = (table.status == "skipped").sum()
    console.print(
        f"{len(table)} points in {seconds:.1f} s, {skipped} of them skipped (the reasons are in plan.csv)"
    )
    console.print(str(out / "plan.csv"), highlight=False, soft_wrap=True)
    return "ok"


def planned_rows(grid: Iterable[RunConfig], workers: int | None) -> list[dict[str, Any]]:
    """Plan all points in several processes; a row each, in no order. Neighbours of one kind are planned together."""
    groups = [list(group) for _, group in groupby(grid, kind_of)]
    # The longest first, so that no worker is left alone with one: work grows with the messages, N * N in a ring.
    groups.sort(key=lambda group: sum(point.devices**2 for point in group), reverse=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.choose"])
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(workers or len(os.sched_getaffinity(0)), context) as pool:
        done = as_completed([pool.submit(plan_group, group) for group in groups])
        for future in track(done, "plans", len(groups), transient=True, disable=not sys.stderr.isatty()):
            rows += future.result()
    return rows


def kind_of(point: RunConfig) -> tuple[str, str, int | None, str]:
    """Cluster, model, resolution and method: points that have these in common share most of the work."""
    return (point.cluster.name, point.model.name, point.model.resolution, point.method.name)


def plan_group(group: list[RunConfig]) -> list[dict[str, Any]]:
    """Plan points of one model and resolution, which share what is known of its blocks; in a process of its own."""
    model, planner = open_model(group[0].model), Planner()
    return [row_of(resolved(point, model), model, planner) for point in group]


def row_of(cfg: RunConfig, model: Model, planner: Planner) -> dict[str, Any]:
    """One point: its keys, how it ended, seconds, and the bytes of the fullest and the busiest device."""
    method = cfg.method
    row: dict[str, Any] = {"model": cfg.model.name, "steps": cfg.steps}
    row |= {"cluster": cfg.cluster.name, "method": method.name}
    row |= {"devices": cfg.devices, "resolution": model.resolution}
    row |= {"height": model.height, "width": model.width}
    row |= {key: getattr(method, key, None) for key in ("patches", "warmup", "split")}
    problem = problem_of(model.shape, cfg)
    node, card = cfg.cluster.topology.devices_per_node, cfg.cluster.topology.card
    if problem is not None:
        return row | {"status": "skipped", "reason": f"{problem.key}: {problem.message}"}
    if card is None and cfg.devices > node:
        return row | {"status": "skipped", "reason": f"devices: {cfg.devices} is more than one node's {node}"}
    planned = planner.plan(cfg, model)
    return (
        row | {"status": "ok" if planned.latency_s else "oom", "reason": planned.reason} | measures(planned)
    )


def measures(planned: Planned) -> dict[str, Any]:
    """Predicted seconds and bytes: the most of any device, each on its own; and what the busiest device waits."""

    def most(key: str) -> float | None:
        values = [report.repeats[-1][key] for report in planned.reports]
        return max(value for value in values if value is not None) if planned.latency_s else None

    busiest = max(planned.reports, key=lambda report: report.repeats[-1]["compute_s"] or 0.0)
    ledgers = [report.ledger for report in planned.reports]
    return {
        "predicted_latency_s": planned.latency_s,
        "compute_s": most("compute_s"),
        "wait_s": most("wait_s"),
        "busiest_wait_s": busiest.repeats[-1]["wait_s"],
        "peak_bytes": planned.peak_bytes,
        "param_bytes": max(sum(held_parameters(report.dit).values()) for report in planned.reports),
        "kv_bytes": max(ledger.buffer_bytes["kv"] for ledger in ledgers),
        "sent_bytes": max(ledger.sent_bytes for ledger in ledgers),
        "missing_bytes": planned.missing_bytes,
    }


def best(table: pd.DataFrame) -> pd.DataFrame:
    """Of each method and N the fastest setting that fits, or the leanest where none does; fastest first."""
    ran = table[table.status != "skipped"]
    order = ["predicted_latency_s", "peak_bytes"]
    ranked = ran.sort_values(order, na_position="last").drop_duplicates(["method", "devices"])
    return ranked.sort_values(order, na_position="last")


def rich_ranking(table: pd.DataFrame, title: str) -> Table:
    """The ranking as a table for the terminal."""
    headings = (
        "method",
        "N",
        "M",
        "W",
        "split",
        "latency s",
        "x serial",
        "wait s",
        "peak GiB",
        "KV GiB",
        "status",
    )
    shown = Table(title=title, title_justify="left")
    for at, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if at in (0, 4, 10) else "right", no_wrap=True)
    serial = table[(table.method == "serial") & (table.status == "ok")].predicted_latency_s.min()
    for row in best(table).to_dict("records"):
        latency, fits = row["predicted_latency_s"], row["status"] == "ok"
        cells = [row["method"], *(number(row[key]) for key in ("devices", "patches", "warmup", "split"))]
        cells += [f"{latency:.2f}", f"{serial / latency:.2f}", f"{row['wait_s']:.2f}"] if fits else ["–"] * 3
        cells += [f"{row[key] / GIB:.2f}" for key in ("peak_bytes", "kv_bytes")]
        shown.add_row(*cells, "fits" if fits else f"oom: {row['missing_bytes'] / GIB:.1f} GiB missing")
    return shown


def number(value: Any) -> str:
    """A cell; whole numbers without a point, what is not there as a dash."""
    if value is None or value != value or str(value) in ("nan", "None"):
        return "–"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def verdict(table: pd.DataFrame) -> str:
    """The fastest that fits, and the one that needs least memory."""
    fits = table[table.status == "ok"].to_dict("records")
    if not fits:
        return "nothing fits"
    fastest = min(fits, key=lambda row: row["predicted_latency_s"])
    leanest = min(fits, key=lambda row: row["peak_bytes"])
    return (
        f"fastest: {setting(fastest)}, {fastest['predicted_latency_s']:.2f} s; leanest: {setting(leanest)}, "
        f"{leanest['peak_bytes'] / GIB:.2f} GiB a device, {leanest['predicted_latency_s']:.2f} s"
    )


def setting(row: Mapping[Hashable, Any]) -> str:
    """`pipefusion N=8 M=16 W=1 even`."""
    keys = [("N", row["devices"]), ("M", row["patches"]), ("W", row["warmup"])]
    texts = [f"{key}={int(value)}" for key, value in keys if pd.notna(value)]
    return " ".join([row["method"], *texts, *([row["split"]] if isinstance(row["split"], str) else [])])
