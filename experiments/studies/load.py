"""`measure=load`: requests that arrive at a rate, served by copies of a product on fewer devices or one on all of them.

N devices are cut into r replicas of N/r devices each; a replica runs the product that is predicted to be the fastest on
so many, one request at a time. Arrivals are Poisson's, or those of a trace; all of it is virtual time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import pandas as pd

from analysis.predicted import known
from analysis.predicted import load as reading
from analysis.records.study import Record
from experiments.config import RunConfig
from experiments.errors import CONF
from experiments.facts import borrowed
from experiments.grid import GridConfig, place, serial_reference
from experiments.journal import Row
from experiments.models.model import Model
from experiments.runs.plan import plan
from experiments.session import Session
from experiments.studies.choose import search
from experiments.studies.queue import latencies, poisson, read_trace
from experiments.studies.requests import PlanConfig, able
from experiments.studies.scaling import check_costs
from experiments.study import Cell, Study, by_itself
from pipefusion.core.domain import Count, Domain, Grid, PatchCounts, Threads, Warmups

Load = Annotated[float, Domain(0, 100, above=True)]
Arrival = Annotated[float, Domain(0, 1e9)]  # seconds
FILLING = 0.1
"""This share of Poisson's requests, the first ones, finds queues that are only filling, and is not counted."""


@dataclass
class LoadConfig(GridConfig):
    """The methods of a replica, and what is asked of it.

    `loads`: requests a second, as shares of what N devices would serve each by itself. `requests` of them at
    each, or those of `trace`, a CSV file with a column `arrival_s`, once. `deadline_s` null: what one device takes.
    """

    name: str = "load"
    methods: Grid[str] = field(
        default_factory=lambda: [
            "serial",
            "sync_pipeline",
            "tensor",
            "ulysses",
            "ring",
            "distrifusion",
            "pipefusion",
        ]
    )
    patches: list[PatchCounts] = field(default_factory=lambda: [4, 8])
    warmups: list[Warmups] = field(default_factory=lambda: [1])
    splits: list[str] = field(default_factory=lambda: ["even"])
    replicas: list[Count] = field(default_factory=list)  # empty: every divisor of N
    loads: Grid[Load] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
    requests: Count = 20_000
    trace: str | None = None
    arrivals: list[Arrival] = field(default_factory=list)  # a trace by itself
    deadline_s: Annotated[float, Domain(0, 1e6, above=True)] | None = None
    workers: Threads | None = None


def shares(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """A run for each way to cut the devices into replicas."""
    options: LoadConfig = cfg.measure
    arrivals = read_trace(options.trace) if options.trace else sorted(options.arrivals)
    for replicas in options.replicas or [r for r in range(1, cfg.devices + 1) if cfg.devices % r == 0]:
        measure = replace(options, replicas=[replicas], arrivals=arrivals, trace=None)
        yield replace(cfg, measure=measure)


def measure(cell: Cell, session: Session) -> list[Row]:
    """A row for each rate: how long requests take at the replicas."""
    cfg, options = cell.cfg, cell.cfg.measure
    (replicas,) = options.replicas
    alone_s = max(rank.total_s for rank in plan(serial_reference(cfg), session).ranks)
    deadline_s = options.deadline_s or alone_s
    product = fastest(cfg, session)
    if isinstance(product, str):
        width = cfg.devices // replicas
        none = {"method": None, "parallel": None, "missing_bytes": 0}
        what = "nothing fits" if product == "oom" else "no product of these methods runs"
        reason = f"{what} on {width} device{'s' * (width > 1)}"
        return [cell.place | none | {"status": product, "reason": reason}]
    service_s = product["predicted_latency_s"]
    columns = ("method", "parallel", "patches", "warmup", "exact", "devices", "pipe", "peak_bytes")
    first = {name: product.get(name) for name in columns}
    first |= {"service_s": service_s, "capacity": replicas / service_s, "deadline_s": deadline_s}
    rows = []
    for rate, arrivals in offered(options, cfg.devices / alone_s, int(np.ravel(cfg.seed)[0])):
        busy = rate * service_s / replicas
        row = cell.place | first | {"rate": rate, "busy": busy}
        if busy >= 1 and not options.arrivals:
            reason = f"saturated: {replicas / service_s:.3g} requests/s are served at most"
            rows.append(row | {"status": "skipped", "reason": reason})
            continue
        found = latencies(arrivals, service_s, replicas)
        counted = found if options.arrivals else found[int(FILLING * len(found)) :]
        p50, p95, p99 = np.quantile(counted, [0.5, 0.95, 0.99])
        row |= {"requests": len(counted), "mean_s": counted.mean(), "p50_s": p50, "p95_s": p95, "p99_s": p99}
        rows.append(row | {"in_time": np.mean(counted <= deadline_s * (1 + 1e-9))})
    return rows


def fastest(cfg: RunConfig, session: Session) -> Row | str:
    """The fastest product that fits on the devices of one replica; `oom` where none does, `skipped` where none is."""
    options, devices = cfg.measure, cfg.devices // cfg.measure.replicas[0]
    lists = {name: getattr(options, name) for name in ("methods", "patches", "warmups", "splits")}
    one = replace(cfg, devices=devices, measure=PlanConfig(devices=[devices], front=False, **lists))
    rows = [row for row in search(Cell(one, {}, ""), session) if row["devices"] == devices]
    fits = [row for row in rows if row.get("status", "ok") == "ok"]
    if not fits:
        return "oom" if any(row["status"] == "oom" for row in rows) else "skipped"
    return min(fits, key=lambda row: float(row["predicted_latency_s"]))


def offered(options: LoadConfig, unit: float, seed: int) -> Iterator[tuple[float, np.ndarray]]:
    """Every rate in requests a second with its arrivals; of a trace its own. The same draws at all rates.

    A trace's rate is that of the gaps between its arrivals, and of a single moment it is not known.
    """
    if options.arrivals:
        times = np.array(options.arrivals) - options.arrivals[0]
        yield (len(times) - 1) / times[-1] if times[-1] else np.nan, times
        return
    times = poisson(options.requests, seed)
    for load in options.loads:
        yield load * unit, times / (load * unit)


def share_place(cfg: RunConfig) -> Row:
    """The first columns of the rows of a way to cut the devices."""
    (replicas,) = cfg.measure.replicas
    own = {"asked": cfg.devices, "replicas": replicas, "devices": cfg.devices // replicas}
    return place(cfg) | own | {"borrowed": ", ".join(borrowed(cfg.cluster, cfg.devices))}


def share_problem(cfg: RunConfig, model: Model) -> str | None:
    """Why the devices cannot be cut so."""
    (replicas,) = cfg.measure.replicas
    if cfg.devices % replicas:
        return f"measure.replicas={replicas} does not divide {cfg.devices} devices; allowed: their divisors"
    return able(cfg, model)


def known_beside(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with intervals of the service times, and distances to serial, from the committed records."""
    return known.beside(rows, CONF.parent / "results", "service_s")


def title(record: Record) -> str:
    """What is served, and where."""
    served = "requests in virtual time, served by replicas of the fastest product on so many devices"
    return f"PREDICTED: {reading.subject(record)}; {served}"


def summary(record: Record) -> str:
    """Which way to cut the devices serves which rate best."""
    return "\n".join(reading.sentences(record.rows))


LOAD = Study(
    "load",
    measure,
    (
        *("replicas", "devices", "method", "parallel", "patches", "service_s", "capacity", "rate", "busy"),
        *("p50_s", "p95_s", "p99_s", "in_time", "status"),
    ),
    title,
    grid=shares,
    problem=share_problem,
    place=share_place,
    group=by_itself,
    derived=known_beside,
    summary=summary,
    check=check_costs,
    options=("methods", "patches", "warmups", "splits"),
)
