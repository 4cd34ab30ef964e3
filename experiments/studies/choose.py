"""`measure=plan`: which product of degrees to run: the front of latency, memory and exactness, and when it changes.

What cannot be chosen is not planned. For each request (size, N, S, images) products are planned in the order of a lower
bound of their seconds (`bound_s`, from closed forms), and a product is `pruned` whose bound is above the seconds of a
planned one that is as exact and holds no more parameters and K, V. Of requests that differ from the one asked for in
one thing only the two fastest products, and the two fastest exact ones, are searched. A device that does not hold its
parameters and K, V is `oom` without a plan.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, replace

import pandas as pd
from rich.console import Group, RenderableType

from analysis.predicted import known, planning
from analysis.presentation.columns import column, words
from analysis.presentation.terminal import rich_table
from analysis.records.study import Record
from experiments.config import RunConfig
from experiments.errors import CONF
from experiments.grid import SETTINGS, expand, place, problem, serial_reference
from experiments.journal import Row
from experiments.methods import METHODS, parallel_degrees
from experiments.models.model import Model
from experiments.models.parts import KINDS, part_bytes
from experiments.runs.plan import Planned, plan, room_bytes, too_much
from experiments.session import Session, machine
from experiments.studies.decode_cost import decode_bytes, decoding_seconds, knows_tiles
from experiments.studies.products import alone, bound_s, expanded, held_bytes, stages
from experiments.studies.requests import PlanConfig as PlanConfig
from experiments.studies.requests import able, check_request, counted, request_place, searches
from experiments.studies.scaling import outcome
from experiments.study import Cell, Study
from pipefusion.core.predict import Prediction
from pipefusion.core.shape import DiTShape
from pipefusion.method import patches_in
from pipefusion.sim.cost import Op, arithmetic_seconds, traffic_seconds


def search(cell: Cell, session: Session) -> list[Row]:
    """Plan the products of a request as long as one could be chosen; a row for each, planned or not."""
    cfg = counted(cell.cfg, session)
    model, options = session.model(cfg.model), cfg.measure
    serial = plan(serial_reference(cfg), session)
    rows, queue, single, sizes = [], [], alone(cfg, session), decoding_bytes(cfg, model)
    decoding = sizes["decode_tiled_bytes" if cfg.model.tiled else "decode_bytes"]
    assert decoding is not None  # or the request was refused
    if "serial" in options.methods:
        rows.append(product_row(serial.cfg, model.shape) | planned_outcome(serial, decoding))
    for point in points(cfg, model):
        row, reason = product_row(point, model.shape), problem(point, model)
        if reason:
            rows.append(row | {"status": "skipped", "reason": reason})
            continue
        forms = stages(point, model.shape)
        row |= {"bound_s": bound_s(point, model.shape, single, forms), "least_bytes": held_bytes(forms)}
        if short := missing(point, forms, decoding):
            rows.append(row | short)
        else:
            queue.append((row, point))
    planned: list[Row] = []
    for row, point in sorted(queue, key=lambda each: each[0]["bound_s"]):
        rival = better(row, planned, options.front)
        if rival is not None:
            reason = f"takes at least {row['bound_s']:.4g} s; {rival['method']} ({rival['parallel']}) takes "
            reason += f"{rival['predicted_latency_s']:.4g} s, is as exact" + " and as lean" * options.front
            rows.append(row | {"status": "pruned", "reason": reason})
            continue
        row |= planned_outcome(plan(point, session), decoding)
        planned += [row] * (row["status"] == "ok")
        rows.append(row)
    sizes |= {f"{kind}_bytes": part_bytes(cfg.model.name, kind, model.dtype.itemsize) for kind in KINDS}
    seconds = {"decode_s": decoding_seconds(cfg, session) if options.count == "pipeline" else None}
    return [cell.place | row | sizes | seconds for row in rows]


def decoding_bytes(cfg: RunConfig, model: Model) -> dict[str, int | None]:
    """What a device holds beside its parameters while it decodes one picture or video, at once and by tiles, None where
    their size is not known: 0 unless the pipeline counts."""
    if cfg.measure.count == "transformer":
        return {"decode_bytes": 0, "decode_tiled_bytes": 0}
    given = cfg.model.name, model.shape.latent_size, model.dtype
    tiled = decode_bytes(*given, tiled=True) if knows_tiles(cfg.model.name) else None
    return {"decode_bytes": decode_bytes(*given), "decode_tiled_bytes": tiled}


def points(cfg: RunConfig, model: Model) -> Iterable[RunConfig]:
    """Every product and setting of a request once: exact methods that are the same run are one."""
    names = [name for name in cfg.measure.methods if name != "serial"]
    own = list(expand(cfg, replace(cfg.measure, methods=names))) if names else []
    found: dict[Hashable, RunConfig] = {}
    for point in [*own, *(other for one in own for other in expanded(one, model))]:
        exact = METHODS[point.method.name].exact
        keys = [repr(getattr(point.method, key, None)) for key in (["split"] if exact else SETTINGS.values())]
        method = "exact" if exact else point.method.name
        degrees = asdict(point.parallel if point.parallel.world == point.devices else parallel_degrees(point))
        found.setdefault((method, *keys, *degrees.values()), point)
    return found.values()


def better(row: Row, planned: Sequence[Row], front: bool) -> Row | None:
    """A planned product that leaves another one no place, None where that may be chosen.

    It may as one of the two fastest products, or the two fastest exact ones; with `front` also by fewer parameters and
    K, V, or by being nearer to serial than what is faster: more patches of the same method are further.
    """

    def as_exact(other: Row) -> bool:
        same = row["method"] == other["method"] and known.cuts(row) >= known.cuts(other)
        return other["exact"] or (same if front else not row["exact"])

    faster = [other for other in planned if row["bound_s"] > other["predicted_latency_s"]]
    ahead = {other["parallel"] for other in faster if other["exact"] or not row["exact"]}
    rivals = [
        one for one in faster if as_exact(one) and (not front or row["least_bytes"] >= one["least_bytes"])
    ]
    return rivals[0] if rivals and len(ahead) > 1 else None


def product_row(cfg: RunConfig, shape: DiTShape) -> Row:
    """The columns of a product: its degrees, also in one text, M as it is run, and whether it is exact."""
    parallel, row = parallel_degrees(cfg), place(cfg)
    if "patches" in METHODS[cfg.method.name].Config.__dataclass_fields__:
        row["patches"] = patches_in(shape, parallel.pipe, parallel.lanes, cfg.method)
    elif METHODS[cfg.method.name].stale_kv:
        row["patches"] = parallel.patch  # a band is a patch
    return row | asdict(parallel) | {"exact": METHODS[cfg.method.name].exact}


def planned_outcome(planned: Planned, decoding: int) -> Row:
    """Status, seconds and bytes of a plan, its peak sampling or `decoding`, and where the seconds go."""
    row = outcome(planned)
    held = row["param_bytes"] + decoding
    row["peak_bytes"] = max(row["peak_bytes"], held)
    if planned.latency_s is None:
        return row
    if held > planned.room_bytes:
        return outcome(replace(planned, latency_s=None)) | no_room(held, "decoding", planned.cfg)
    return row | whereabouts(planned) | attention_roofline(planned)


def whereabouts(planned: Planned) -> Row:
    """Where a plan's seconds go, the mean of its devices: four parts that make up the latency, and the largest.

    `host`: the device waits for operations to be issued; `bubble`: a stage for another one, or for the run's end;
    `exchange`: all other communication.
    """
    ranks, latency_s = planned.ranks, planned.latency_s
    assert latency_s is not None
    kernels = sum(rank.meter.busy_s for rank in ranks)
    stages_s = sum(rank.stage_wait_s for rank in ranks)
    parts = {
        "kernels_s": kernels,
        "exchange_s": sum(rank.wait_s for rank in ranks) - stages_s,
        "bubble_s": stages_s + sum(latency_s - rank.total_s for rank in ranks),
        "host_s": sum(rank.compute_s for rank in ranks) - kernels,
    }
    largest = max(parts, key=lambda name: parts[name])
    return {name: part / len(ranks) for name, part in parts.items()} | {"bottleneck": column(largest).heading}


def attention_roofline(planned: Planned) -> Row:
    """What attention reads and writes on the device where that is most, and the seconds of this and of its arithmetic:
    the longer of the two is what its kernels take."""
    device, itemsize = machine(planned.cfg.cluster)[0], planned.shape.itemsize
    meter = max((rank.meter for rank in planned.ranks), key=lambda meter: meter.attention_bytes)
    size = (planned.shape.head_dim,)
    op = Op("attention", meter.attention_flops, meter.attention_bytes, itemsize, size)
    return {
        "attention_bytes": int(meter.attention_bytes),
        "attention_traffic_s": traffic_seconds(op, device),
        "attention_arithmetic_s": arithmetic_seconds(op, device),
    }


def missing(point: RunConfig, forms: list[tuple[int, Prediction]], decoding: int) -> Row:
    """The outcome of a device that does not hold parameters and K, V, or decoding; nothing where it does."""
    params = max(form.param_bytes for _, form in forms)
    held, what = max((held_bytes(forms), "K, V"), (params + decoding, "decoding"))
    if held <= room_bytes(point):
        return {}
    return no_room(held, what, point) | {
        f"{key}_bytes": max(getattr(form, f"{key}_bytes") for _, form in forms) for key in ("param", "kv")
    }


def no_room(held: int, what: str, point: RunConfig) -> Row:
    """The outcome of a device that does not hold its parameters and `what`."""
    counted = " beside text encoders and VAE" * (point.measure.count == "pipeline")
    text = f"a device {too_much(held, point)}{counted}, for parameters and {what} alone"
    return {
        "status": "oom",
        "reason": text,
        "peak_bytes": held,
        "missing_bytes": held - room_bytes(point),
    }


def same_blocks(cell: Cell) -> Hashable:
    """Requests that differ in S alone share the costs of their blocks."""
    return tuple(cell.place[key] for key in ("height", "width", "images", "asked"))


def known_beside(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with intervals and distances from the committed records."""
    return known.beside(rows, CONF.parent / "results")


def title(record: Record) -> str:
    """What was asked for."""
    held = record.facts["config"]["measure"]["count"]
    kept = "No other setting is as fast, as lean and as exact as one of these"
    serial = "; serial stands below them" * ("serial" in record.facts["config"]["measure"]["methods"])
    return f"{planning.title(record)}; a device holds the {held}. {kept}{serial}"


def answer(record: Record) -> RenderableType:
    """When the winner changes, and the answer in words."""
    others = planning.crossovers(record.rows)
    crossed = rich_table(
        words(others, planning.CROSSOVERS), "The fastest, where one thing of the request is another"
    )
    return Group(planning.NOTE, *[crossed] * (len(others) > 1), planning.answers(record.rows))


PLAN = Study(
    "plan",
    search,
    tuple(planning.FRONT),
    title,
    grid=searches,
    problem=able,
    place=request_place,
    group=same_blocks,
    derived=known_beside,
    shown=planning.shown,
    summary=answer,
    check=check_request,
    options=("methods", "devices", "patches", "warmups", "splits", "rings", "texts", "crosses"),
)
