"""`measure=plan`: methods, products of degrees and resolutions of one model on one cluster, and which to choose.

What cannot be the fastest is not planned. For each resolution and N, of each displaced method and of all exact ones
together, products are planned in the order of a lower bound of their seconds (`bound_s`, from closed forms) until that
is above the seconds of the fastest one planned; those left are `pruned`. A device that does not hold its parameters
and K, V is `oom` without a plan.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
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
from experiments.methods import METHODS, parallel_of, problem_of
from experiments.models import Model, open_model, resolved
from experiments.plan import GIB, Planned, Planner
from experiments.products import alone, bound_s, expanded, held_bytes, stages
from experiments.records import write_csv, write_json
from experiments.report import held_parameters
from pipefusion.core.domain import Count, Devices, Grid, Patches, Pixels, Threads, Warmup
from pipefusion.core.parallel import AXES
from pipefusion.core.predict import Prediction

SETTINGS = ("patches", "warmup", "split")
PRUNED = (
    "not planned, since closed forms alone give it more seconds (bound_s) than another point with the same N and size "
    "takes; exact methods compete with each other, a displaced one with itself"
)
"""The rule, as the ranking says it."""


@dataclass
class PlanConfig:
    """The grid, and serial on one device beside it. `resolutions` null: the model's own.

    `patches`, `warmups` and `splits` are tried where a method has them; `workers` null: a process for each core.
    `shown`: so many products are printed for each N; all are in plan.csv.
    """

    name: str = "plan"
    methods: Grid[str] = field(default_factory=lambda: list(METHODS))
    devices: Grid[Devices] = field(default_factory=lambda: [2, 4, 8])
    resolutions: Grid[Pixels] | None = None
    patches: Grid[Patches] = field(default_factory=lambda: [2, 4, 8, 16])
    warmups: Grid[Warmup] = field(default_factory=lambda: [1])
    splits: Grid[str] = field(default_factory=lambda: ["even"])
    workers: Threads | None = None
    shown: Count = 10


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
    """Every run of the grid with all devices on the method's own axis, serial once a resolution."""
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
    """Plan the grid and its products into `out`/plan.csv and plan.json, print the ranking; returns the status."""
    started = time.time()
    grid = sorted(points(cfg), key=rivals_of)
    rows = planned_rows(grid, cfg.measure.workers, rivals_of, search)
    keys = ["height", "width", "method", "devices", *AXES, *SETTINGS]
    table = pd.DataFrame(rows).drop(columns=["model", "steps", "cluster"])
    table = table.sort_values(keys, ignore_index=True)
    seconds = time.time() - started
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "plan.csv", table)
    counts = table.status.value_counts().to_dict()
    record = {"predicted": True, "config": as_dict(cfg), "seconds": seconds, "points": len(table)}
    write_json(out / "plan.json", record | {"counts": counts} | provenance())
    console = Console() if sys.stdout.isatty() else Console(width=150)
    for (height, width), part in table.groupby(["height", "width"], sort=True):
        size = f"{height} px" if height == width else f"{height} x {width} px"
        title = f"{cfg.model.name} at {size} on {cfg.cluster.name}, predicted"
        console.print(rich_ranking(part, title, cfg.measure.shown))
        console.print(verdict(part), highlight=False)
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(f"{len(table)} points in {seconds:.1f} s: {said} (the reasons are in plan.csv)")
    console.print(f"pruned: {PRUNED}", highlight=False)
    console.print(str(out / "plan.csv"), highlight=False, soft_wrap=True)
    return "ok"


def kind_of(point: RunConfig) -> tuple[str, str, int | None, str]:
    """Cluster, model, resolution and method: points that have these in common share most of the work."""
    return (point.cluster.name, point.model.name, point.model.resolution, point.method.name)


def plan_group(group: list[RunConfig]) -> list[dict[str, Any]]:
    """Plan points of one model and resolution, which share what is known of its blocks; in a process of its own."""
    model, planner = open_model(group[0].model), Planner()
    return [row_of(resolved(point, model), model, planner) for point in group]


def rivals_of(point: RunConfig) -> tuple[int, int, str]:
    """Resolution, N, and the method or `exact`: among points that have these in common the fastest is looked for."""
    method = point.method.name
    return (point.model.resolution or 0, point.devices, "exact" if METHODS[method].exact else method)


def search(group: list[RunConfig]) -> list[dict[str, Any]]:
    """Plan the products of rivals as long as one could be the fastest; a row for each, planned or not."""
    model, planner = open_model(group[0].model), Planner()
    own = [resolved(point, model) for point in group]
    found: dict[Any, RunConfig] = {}
    for point in [*own, *(other for one in own for other in expanded(one, model))]:
        settings = [getattr(point.method, key, None) for key in SETTINGS]
        found.setdefault((*settings, *asdict(point.parallel).values()), point)  # exact ones are the same run
    single, rows, queue = alone(own[0], model, planner), [], []
    for point in found.values():
        reason = skipped(point, model)
        if reason:
            rows.append(product_row(point, model) | {"status": "skipped", "reason": reason})
            continue
        forms = stages(point, model.shape)
        bound = bound_s(point, model.shape, single, forms)
        short = missing(point, forms)
        if short:
            rows.append(product_row(point, model) | {"bound_s": bound} | short)
        else:
            queue.append((bound, point))
    fastest = math.inf
    for bound, point in sorted(queue, key=lambda each: each[0]):
        row = product_row(point, model) | {"bound_s": bound}
        if bound > fastest:
            reason = f"takes at least {bound:.4g} s; another takes {fastest:.4g} s"
            rows.append(row | {"status": "pruned", "reason": reason})
            continue
        row |= row_of(point, model, planner)
        fastest = min(fastest, row["predicted_latency_s"] or math.inf)
        rows.append(row)
    return rows


def missing(point: RunConfig, forms: list[tuple[int, Prediction]]) -> dict[str, Any]:
    """What a row says of a device that does not hold parameters and K, V; nothing where it does."""
    hardware = point.cluster.hardware
    assert hardware is not None
    held, room = held_bytes(forms), hardware.memory_bytes - hardware.reserved_bytes
    if held <= room:
        return {}
    text = f"parameters and K, V alone are {held} bytes ({held / GIB:.1f} GiB), {held - room} more than the {room} "
    text += f"that {hardware.name} has for tensors"
    return {"status": "oom", "reason": text, "peak_bytes": held, "missing_bytes": held - room} | {
        f"{key}_bytes": max(getattr(form, f"{key}_bytes") for _, form in forms) for key in ("param", "kv")
    }


def planned_rows(
    grid: Iterable[RunConfig],
    workers: int | None,
    kind: Callable[[RunConfig], tuple[Any, ...]] = kind_of,
    plan: Callable[[list[RunConfig]], list[dict[str, Any]]] = plan_group,
) -> list[dict[str, Any]]:
    """Plan all points in several processes; their rows, in no order. Neighbours of one kind are planned together."""
    groups = [list(group) for _, group in groupby(grid, kind)]
    # The longest first, so that no worker is left alone with one: work grows with the messages, N * N in a ring.
    groups.sort(key=lambda group: sum(point.devices**2 for point in group), reverse=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.choose"])
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(workers or len(os.sched_getaffinity(0)), context) as pool:
        done = as_completed([pool.submit(plan, group) for group in groups])
        for future in track(done, "plans", len(groups), transient=True, disable=not sys.stderr.isatty()):
            rows += future.result()
    return rows


def keys_of(cfg: RunConfig, model: Model) -> dict[str, Any]:
    """What a row is told apart by."""
    row = {
        "model": cfg.model.name,
        "steps": cfg.steps,
        "cluster": cfg.cluster.name,
        "method": cfg.method.name,
    }
    row |= {"devices": cfg.devices, "resolution": model.resolution}
    row |= {"height": model.height, "width": model.width}
    return row | {key: getattr(cfg.method, key, None) for key in SETTINGS}


def product_row(cfg: RunConfig, model: Model) -> dict[str, Any]:
    """The keys of a product: its degrees, also in one text, and whether it is exact."""
    parallel = parallel_of(cfg)
    degrees = {"parallel": str(parallel), **asdict(parallel), "exact": METHODS[cfg.method.name].exact}
    return keys_of(cfg, model) | degrees


def skipped(cfg: RunConfig, model: Model) -> str | None:
    """Why a point is no run of this model on this cluster, or None."""
    problem, node = problem_of(model.shape, cfg), cfg.cluster.topology.devices_per_node
    if problem is not None:
        return f"{problem.key}: {problem.message}"
    if cfg.cluster.topology.card is None and cfg.devices > node:
        return f"devices: {cfg.devices} is more than one node's {node}"
    return None


def row_of(cfg: RunConfig, model: Model, planner: Planner) -> dict[str, Any]:
    """One point: its keys, how it ended, seconds, and the bytes of the fullest and the busiest device."""
    row, reason = keys_of(cfg, model), skipped(cfg, model)
    if reason:
        return row | {"status": "skipped", "reason": reason}
    planned = planner.plan(cfg, model)
    status = "ok" if planned.latency_s else "oom"
    return row | {"status": status, "reason": planned.reason} | measures(planned)


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
    """Of each method, N and product the fastest setting that fits, or the leanest where none does; fastest first."""
    ran = table[table.status.isin(["ok", "oom"])]
    order = ["predicted_latency_s", "peak_bytes"]
    one = ["method", "devices", *(axis for axis in AXES if axis in table)]
    ranked = ran.sort_values(order, na_position="last").drop_duplicates(one)
    return ranked.sort_values(order, na_position="last")


def rich_ranking(table: pd.DataFrame, title: str, shown: int) -> Table:
    """The ranking as a table for the terminal: the first `shown` of each N, numbered among all."""
    numbers = ["latency s", "x serial", "wait s", "peak GiB", "KV GiB"]
    words = ["method", "exact", "degrees", "split", "status"]
    drawn = Table(title=title, title_justify="left")
    order = ["#", "method", "exact", "N", "degrees", "M", "W", "split", *numbers, "status"]
    for heading in order:
        drawn.add_column(heading, justify="left" if heading in words else "right", no_wrap=True)
    serial = table[(table.method == "serial") & (table.devices == 1) & (table.status == "ok")]
    alone_s, ranked = serial.predicted_latency_s.min(), best(table)
    ranked = ranked.assign(rank=range(1, len(ranked) + 1)).groupby("devices").head(shown)
    for row in ranked.to_dict("records"):
        latency, fits = row["predicted_latency_s"], row["status"] == "ok"
        cells = [str(row["rank"]), row["method"], "yes" if row["exact"] else "no", str(row["devices"])]
        cells += [row["parallel"], *(number(row[key]) for key in SETTINGS)]
        cells += [f"{latency:.2f}", f"{alone_s / latency:.2f}", f"{row['wait_s']:.2f}"] if fits else ["–"] * 3
        cells += [f"{row[key] / GIB:.2f}" for key in ("peak_bytes", "kv_bytes")]
        drawn.add_row(*cells, "fits" if fits else f"oom: {row['missing_bytes'] / GIB:.1f} GiB missing")
    return drawn


def number(value: Any) -> str:
    """A cell; whole numbers without a point, what is not there as a dash."""
    if value is None or value != value or str(value) in ("nan", "None"):
        return "–"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def verdict(table: pd.DataFrame) -> str:
    """The fastest that fits, and of those planned the one that needs least memory."""
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
    """`pipefusion N=8 (cfg 2 x pipe 4) M=16 W=1 even`."""
    keys = [("N", row["devices"]), ("M", row["patches"]), ("W", row["warmup"])]
    texts = [f"{key}={int(value)}" for key, value in keys if pd.notna(value)]
    texts[1:1] = [f"({row['parallel']})"] if row["devices"] > 1 and "parallel" in row else []
    return " ".join([row["method"], *texts, *([row["split"]] if isinstance(row["split"], str) else [])])
