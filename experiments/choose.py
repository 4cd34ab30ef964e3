"""`measure=plan`: methods, products of degrees and resolutions of one model on one cluster, and which to choose.

What cannot be the fastest is not planned. For each size and N, of each displaced method and of all exact ones together
(a cell), products are planned in the order of a lower bound of their seconds (`bound_s`, from closed forms) until that
is above the seconds of the fastest one planned; those left are `pruned`. A device that does not hold its parameters
and K, V is `oom` without a plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from analysis.columns import GIB, column
from analysis.study import Record
from experiments.config import RunConfig
from experiments.grid import GridConfig, expand, place, problem
from experiments.journal import Row
from experiments.methods import METHODS, parallel_degrees
from experiments.models import Model
from experiments.plan import Planned, plan
from experiments.products import alone, bound_s, expanded, held_bytes, stages
from experiments.scaling import check_costs, outcome
from experiments.session import Session
from experiments.study import Cell, Study
from pipefusion.core.domain import Count, Devices, Grid, PatchCounts, Threads, Warmups
from pipefusion.core.parallel import AXES
from pipefusion.core.predict import Prediction
from pipefusion.core.shape import DiTShape
from pipefusion.method import patches_in

PRUNED = (
    "pruned: not planned, since closed forms alone give it more seconds (bound_s) than another product with the same N "
    "and size takes; exact methods compete with each other, a displaced one with itself"
)


@dataclass
class PlanConfig(GridConfig):
    """The grid, and serial on one device beside it. `workers` null: a process for each core.

    `shown`: so many products are printed for each N; the record has all.
    """

    name: str = "plan"
    methods: Grid[str] = field(default_factory=lambda: list(METHODS))
    devices: Grid[Devices] = field(default_factory=lambda: [2, 4, 8])
    patches: list[PatchCounts] = field(default_factory=lambda: [2, 4, 8, 16])
    warmups: list[Warmups] = field(default_factory=lambda: [1])
    splits: list[str] = field(default_factory=lambda: ["even"])
    workers: Threads | None = None
    shown: Count = 10


def searches(cfg: RunConfig, session: Session) -> Iterable[RunConfig]:
    """A run for each size, N and group of rivals (the exact methods, or one displaced method)."""
    options: PlanConfig = cfg.measure
    exact = [name for name in options.methods if METHODS[name].exact and name != "serial"]
    displaced = [[name] for name in options.methods if not METHODS[name].exact]
    sizes: list[int | None] = [*options.resolutions] or [None]
    for size in sizes:
        model = cfg.model if size is None else replace(cfg.model, resolution=size, height=None, width=None)
        for devices in options.devices:
            alone_too = [["serial"]] if "serial" in options.methods and devices == options.devices[0] else []
            for names in [*alone_too, *([exact] if exact else []), *displaced]:
                n = 1 if names == ["serial"] else devices
                measure = replace(options, methods=names, devices=[n], resolutions=[])
                method = METHODS[names[0]].Config(heads=cfg.method.heads)
                yield replace(cfg, model=model, devices=n, method=method, measure=measure)


def search(cell: Cell, session: Session) -> list[Row]:
    """Plan the products of rivals as long as one could be the fastest; a row for each, planned or not."""
    model = session.model(cell.cfg.model)
    own = list(expand(cell.cfg, cell.cfg.measure))
    found: dict[Any, RunConfig] = {}
    for point in [*own, *(other for one in own for other in expanded(one, model))]:
        settings = [getattr(point.method, key, None) for key in ("patches", "warmup", "split")]
        degrees = asdict(point.parallel if point.parallel.world == point.devices else parallel_degrees(point))
        found.setdefault((*settings, *degrees.values()), point)  # exact ones are the same run
    single, rows, queue = alone(own[0], session), [], []
    for point in found.values():
        row = product_row(point, model.shape)
        reason = problem(point, model)
        if reason:
            rows.append(row | {"status": "skipped", "reason": reason})
            continue
        forms = stages(point, model.shape)
        row["bound_s"] = bound_s(point, model.shape, single, forms)
        short = missing(point, forms)
        if short:
            rows.append(row | short)
        else:
            queue.append((row, point))
    fastest = math.inf
    for row, point in sorted(queue, key=lambda each: each[0]["bound_s"]):
        if row["bound_s"] > fastest:
            reason = f"takes at least {row['bound_s']:.4g} s; another takes {fastest:.4g} s"
            rows.append(row | {"status": "pruned", "reason": reason})
            continue
        planned = plan(point, session)
        row |= outcome(planned)
        if planned.latency_s is not None:
            row["bottleneck"], fastest = bottleneck(planned), min(fastest, planned.latency_s)
        rows.append(row)
    return rows


def product_row(cfg: RunConfig, shape: DiTShape) -> Row:
    """The columns of a product: its degrees, also in one text, M as it is run, and whether it is exact."""
    parallel, row = parallel_degrees(cfg), place(cfg)
    if "patches" in METHODS[cfg.method.name].Config.__dataclass_fields__:
        row["patches"] = patches_in(shape, parallel.pipe, parallel.lanes, cfg.method)
    elif METHODS[cfg.method.name].stale_kv:
        row["patches"] = parallel.patch  # a band is a patch
    return row | asdict(parallel) | {"exact": METHODS[cfg.method.name].exact}


def bottleneck(planned: Planned) -> str:
    """Where most of the devices' seconds go.

    `host`: the device waits for operations to be issued; `bubble`: a stage for another one, or for the run's end;
    `exchange`: all other communication.
    """
    ranks, latency_s = planned.ranks, planned.latency_s
    assert latency_s is not None
    kernels = sum(rank.meter.busy_s for rank in ranks)
    stages_s = sum(rank.stage_wait_s for rank in ranks)
    seconds = {
        "compute": kernels,
        "exchange": sum(rank.wait_s for rank in ranks) - stages_s,
        "bubble": stages_s + sum(latency_s - rank.total_s for rank in ranks),
        "host": sum(rank.compute_s for rank in ranks) - kernels,
    }
    return max(seconds, key=lambda name: seconds[name])


def missing(point: RunConfig, forms: list[tuple[int, Prediction]]) -> Row:
    """The outcome of a device that does not hold parameters and K, V; nothing where it does."""
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


def able(cfg: RunConfig, model: Model) -> None:
    """A search is never skipped: its products are."""


def each(cell: Cell) -> str:
    """Every search is a task of its own: the larger N take most of the time."""
    return cell.key


def best(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each size, method and product the fastest setting that fits, or the leanest where none does; fastest first."""
    ran = rows[rows.status.isin(["ok", "oom"])]
    order = ["height", "width", "predicted_latency_s", "peak_bytes"]
    ranked = ran.sort_values(order, na_position="last")
    return ranked.drop_duplicates(["height", "width", "method", "devices", *AXES])


def ranking(record: Record) -> pd.DataFrame:
    """The first products of each size and N, numbered among all of the size, with their speed over serial's."""
    ranked = best(record.rows)
    sizes = ranked.groupby(["height", "width"])
    alone_s = ranked[(ranked.method == "serial") & (ranked.devices == 1)]
    alone_s = alone_s[["height", "width", "predicted_latency_s"]].rename(
        columns={"predicted_latency_s": "serial_s"}
    )
    ranked = ranked.assign(place=sizes.cumcount() + 1).merge(alone_s, how="left", on=["height", "width"])
    ranked["speedup"] = ranked.serial_s / ranked.predicted_latency_s
    ranked["px"] = sizes_in(ranked)
    shown = record.facts["config"]["measure"]["shown"]
    return ranked.groupby(["height", "width", "devices"]).head(shown)


def title(record: Record) -> str:
    """What was asked: model, hardware, sizes, S, number type and guidance."""
    rows, config = record.rows, record.facts["config"]
    first = rows.iloc[0]
    sizes = ", ".join(dict.fromkeys(sizes_in(rows)))
    asked = f"{first.model} on {first.cluster}, {sizes} px, S = {first.steps}, {config['model']['dtype']}"
    guided = f"guidance {first.guidance_scale:g}" if pd.notna(first.guidance_scale) else "no guidance"
    return f"PREDICTED for {asked}, {guided}: the fastest products of each size and N for this S alone"


def sizes_in(rows: pd.DataFrame) -> list[str]:
    """The size of each row in pixels: one number where it is square."""
    return [f"{h}" if h == w else f"{h} x {w}" for h, w in zip(rows.height, rows.width, strict=True)]


def verdict(record: Record) -> str:
    """For each size the fastest that fits, and of those planned the one that needs least memory."""
    lines = []
    for (height, width), part in record.rows.groupby(["height", "width"]):
        fits = part[part.status == "ok"].to_dict("records")
        if not fits:
            lines.append(f"{height} x {width} px: nothing fits")
            continue
        fastest = min(fits, key=lambda row: row["predicted_latency_s"])
        leanest = min(fits, key=lambda row: row["peak_bytes"])
        lines.append(
            f"{height} x {width} px: fastest {setting(fastest)}, {fastest['predicted_latency_s']:.2f} s; leanest "
            f"{setting(leanest)}, {leanest['peak_bytes'] / GIB:.2f} GiB per device, "
            f"{leanest['predicted_latency_s']:.2f} s"
        )
    return "\n".join([*lines, PRUNED])


def setting(row: Mapping[Any, Any]) -> str:
    """`pipefusion N=8 (cfg 2 x pipe 4) M=16 W=1 even`."""
    keys = [("N", row["devices"]), ("M", row["patches"]), ("W", row["warmup"])]
    texts = [f"{key}={int(value)}" for key, value in keys if pd.notna(value)]
    texts[1:1] = [f"({row['parallel']})"] if row["devices"] > 1 else []
    return " ".join([row["method"], *texts, *([row["split"]] if isinstance(row["split"], str) else [])])


PLAN = Study(
    "plan",
    search,
    (
        *("px", "place", "method", "exact", "devices", "parallel", "patches", "warmup"),
        *("predicted_latency_s", "speedup", "bottleneck"),
        *(column("peak_bytes", unit="GiB"), column("kv_bytes", unit="GiB"), "status"),
    ),
    title,
    grid=searches,
    problem=able,
    group=each,
    shown=ranking,
    summary=verdict,
    check=check_costs,
    options=("methods", "devices", "patches", "warmups", "splits"),
)
