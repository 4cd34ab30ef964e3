"""`measure=plan`: which product of degrees to run: the front of latency, memory and exactness, and when it changes.

What cannot be chosen is not planned. For each request (size, N, S, images) products are planned in the order of a lower
bound of their seconds (`bound_s`, from closed forms), and a product is `pruned` whose bound is above the seconds of a
planned one that is as exact and holds no more parameters and K, V. Of requests that differ from the one asked for in
one thing only the two fastest products, and the two fastest exact ones, are searched. A device that does not hold its
parameters and K, V is `oom` without a plan.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

import pandas as pd
from rich.console import Group, RenderableType

from analysis import planning
from analysis.columns import GIB, column, words
from analysis.study import Record
from analysis.terminal import rich_table
from experiments.check import checked_shape
from experiments.check_command import check_node
from experiments.config import RunConfig, read_prompts
from experiments.errors import CONF, ConfigError
from experiments.facts import borrowed
from experiments.grid import SETTINGS, GridConfig, expand, place, problem, serial_reference
from experiments.journal import Row
from experiments.methods import METHODS, parallel_degrees
from experiments.models import Model
from experiments.parts import KINDS, part_bytes
from experiments.plan import Planned, plan, room_bytes
from experiments.products import alone, bound_s, expanded, held_bytes, stages
from experiments.scaling import check_costs, outcome
from experiments.session import Session
from experiments.study import Cell, Study
from pipefusion.core.domain import Count, Domain, Grid, PatchCounts, Threads, Warmups
from pipefusion.core.predict import Prediction
from pipefusion.core.shape import DiTShape
from pipefusion.method import patches_in

COUNTS = ("transformer", "pipeline")
Factor = Annotated[float, Domain(0, 64, above=True)]


@dataclass
class PlanConfig(GridConfig):
    """The grid, and serial on one device beside it. `workers` null: a process for each core.

    `count`: what a device has to hold, the transformer alone, or the whole pipeline with text encoders and VAE.
    `size_factors`, `step_factors`, `image_factors`: other requests, each of which differs from the run's own in its
    sides, S or images alone. `front`: plan all that may be on the front, and not only the fastest.
    """

    name: str = "plan"
    methods: Grid[str] = field(default_factory=lambda: list(METHODS))
    patches: list[PatchCounts] = field(default_factory=lambda: [2, 4, 8, 16])
    warmups: list[Warmups] = field(default_factory=lambda: [1])
    splits: list[str] = field(default_factory=lambda: ["even"])
    count: str = "transformer"  # transformer | pipeline
    size_factors: list[Factor] = field(default_factory=lambda: [0.5, 2.0])
    step_factors: list[Factor] = field(default_factory=lambda: [0.5, 2.0])
    image_factors: list[Count] = field(default_factory=lambda: [4])
    front: bool = True
    workers: Threads | None = None


def searches(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """The requests: those of the lists of sizes and N, or the run's own, then those that differ from the first."""
    options: PlanConfig = cfg.measure
    found: dict[str, RunConfig] = {}
    sizes: list[int | None] = [*options.resolutions] or [None]
    for size in sizes:
        model = cfg.model if size is None else replace(cfg.model, resolution=size, height=None, width=None)
        for devices in options.devices or [cfg.devices]:
            one = replace(cfg, model=model, devices=devices)
            found.setdefault(request(one), one)
    first = next(iter(found.values()))
    for one in varied(first, options, session):
        found.setdefault(request(one), replace(one, measure=replace(options, front=False)))
    for one in found.values():
        lists = replace(one.measure, resolutions=[], devices=[one.devices])
        yield replace(one, measure=replace(lists, size_factors=[], step_factors=[], image_factors=[]))


def request(cfg: RunConfig) -> str:
    """What is asked for."""
    return repr((cfg.model, cfg.devices, cfg.steps, cfg.images_per_prompt))


def varied(cfg: RunConfig, options: PlanConfig, session: Session) -> Iterator[RunConfig]:
    """A request with another size, S or number of images: sides in whole tokens, S at least 1."""
    try:
        model = session.model(cfg.model)
        checked_shape(model)
    except ValueError:  # its cell says so
        return
    for factor in options.size_factors:
        height, width = (
            round(side * factor / model.multiple) * model.multiple for side in (model.height, model.width)
        )
        if min(height, width) and (height, width) != (model.height, model.width):
            side = height if height == width else None
            sides = (None, None) if side else (height, width)
            sized = replace(cfg.model, resolution=side, height=sides[0], width=sides[1])
            yield replace(cfg, model=sized)
    for factor in options.step_factors:
        steps = max(1, round(cfg.steps * factor))
        if steps != cfg.steps:
            yield replace(cfg, steps=steps)
    for times in options.image_factors:
        if times > 1:
            yield replace(cfg, images_per_prompt=cfg.images_per_prompt * times)


def search(cell: Cell, session: Session) -> list[Row]:
    """Plan the products of a request as long as one could be chosen; a row for each, planned or not."""
    cfg = counted(cell.cfg, session)
    model, options = session.model(cfg.model), cfg.measure
    serial = plan(serial_reference(cfg), session)
    rows, queue, single = [], [], alone(cfg, session)
    if "serial" in options.methods:
        rows.append(product_row(serial.cfg, model.shape) | planned_outcome(serial))
    for point in points(cfg, model):
        row, reason = product_row(point, model.shape), problem(point, model)
        if reason:
            rows.append(row | {"status": "skipped", "reason": reason})
            continue
        forms = stages(point, model.shape)
        row |= {"bound_s": bound_s(point, model.shape, single, forms), "least_bytes": held_bytes(forms)}
        if short := missing(point, forms):
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
        row |= planned_outcome(plan(point, session))
        planned += [row] * (row["status"] == "ok")
        rows.append(row)
    sizes = {f"{kind}_bytes": part_bytes(cfg.model.name, kind, model.dtype.itemsize) for kind in KINDS}
    return [cell.place | row | sizes for row in rows]


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
        same = row["method"] == other["method"] and planning.cuts(row) >= planning.cuts(other)
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


def planned_outcome(planned: Planned) -> Row:
    """Status, seconds and bytes of a plan, and where the seconds go."""
    return outcome(planned) | ({} if planned.latency_s is None else whereabouts(planned))


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


def missing(point: RunConfig, forms: list[tuple[int, Prediction]]) -> Row:
    """The outcome of a device that does not hold parameters and K, V; nothing where it does."""
    hardware = point.cluster.hardware
    assert hardware is not None
    held, room = held_bytes(forms), room_bytes(point)
    if held <= room:
        return {}
    text = f"parameters and K, V alone are {held} bytes ({held / GIB:.1f} GiB), {held - room} more than the {room} "
    text += f"that {hardware.name} has for tensors"
    return {"status": "oom", "reason": text, "peak_bytes": held, "missing_bytes": held - room} | {
        f"{key}_bytes": max(getattr(form, f"{key}_bytes") for _, form in forms) for key in ("param", "kv")
    }


def counted(cfg: RunConfig, session: Session) -> RunConfig:
    """A request on devices that also hold the text encoders and the VAE, where the pipeline counts."""
    if cfg.measure.count == "transformer":
        return cfg
    itemsize, hardware = session.model(cfg.model).dtype.itemsize, cfg.cluster.hardware
    assert hardware is not None
    others = sum(part_bytes(cfg.model.name, kind, itemsize) or 0 for kind in KINDS)
    fuller = replace(hardware, reserved_bytes=hardware.reserved_bytes + others)
    return replace(cfg, cluster=replace(cfg.cluster, hardware=fuller))


def check_request(cfg: RunConfig, session: Session) -> None:
    """Raises ConfigError for a cluster without costs, and for a pipeline whose parts are not known."""
    check_costs(cfg, session)
    if cfg.measure.count not in COUNTS:
        text = f"{cfg.measure.count!r} is unknown; allowed: {', '.join(COUNTS)}"
        raise ConfigError("measure.count", text)
    unknown = [kind for kind in KINDS if part_bytes(cfg.model.name, kind, 1) is None]
    if cfg.measure.count == "pipeline" and unknown:
        text = f"pipeline needs the {' and '.join(unknown)} of {cfg.model.name}, which conf/part has not"
        raise ConfigError("measure.count", f"{text}; allowed: transformer")


def request_place(cfg: RunConfig) -> Row:
    """The first columns of a request's rows."""
    images, others = len(read_prompts(cfg)), ", ".join(borrowed(cfg.cluster, cfg.devices))
    return place(cfg) | {
        "asked": cfg.devices,
        "images": images,
        "front": cfg.measure.front,
        "borrowed": others,
    }


def able(cfg: RunConfig, model: Model) -> str | None:
    """Why the cluster has no such N; whatever else a product cannot be is the product's own reason."""
    request = check_node(cfg)
    return None if request is None else str(request)


def same_blocks(cell: Cell) -> Hashable:
    """Requests that differ in S alone share the costs of their blocks."""
    return tuple(cell.place[key] for key in ("height", "width", "images", "asked"))


def known_beside(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with intervals and distances from the committed records."""
    return planning.beside(rows, CONF.parent / "results")


def title(record: Record) -> str:
    """What was asked for."""
    held = record.facts["config"]["measure"]["count"]
    return f"{planning.title(record)}; a device holds the {held}. No other setting is as fast, as lean and as exact"


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
