"""What a plan is asked for: its configuration, the requests that come of it, and which of them cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated

from experiments.command.check import check_node
from experiments.config import RunConfig, read_prompts
from experiments.errors import ConfigError
from experiments.facts import borrowed
from experiments.grid import GridConfig, place
from experiments.journal import Row
from experiments.methods import METHODS
from experiments.models.model import Model
from experiments.models.parts import KINDS, part_bytes
from experiments.runs.check import checked_shape
from experiments.session import Session
from experiments.studies.decode_cost import knows_tiles
from experiments.studies.scaling import check_costs
from pipefusion.core.domain import Count, Domain, Grid, PatchCounts, Threads, Warmups

COUNTS = ("transformer", "pipeline")
Factor = Annotated[float, Domain(0, 64, above=True)]


@dataclass
class PlanConfig(GridConfig):
    """The grid, and serial on one device beside it. `workers` null: a process for each core.

    `count`: what a device has to hold, the transformer alone, or the whole pipeline with text encoders and VAE, which
    decodes as `model.tiled` says.
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
        text = f"pipeline needs the {' and '.join(unknown)} of {cfg.model.name}; conf/part has none"
        raise ConfigError("measure.count", f"{text}; allowed: transformer")
    if cfg.measure.count == "pipeline" and cfg.model.tiled and not knows_tiles(cfg.model.name):
        text = f"true needs the size of a tile, and conf/part has none for {cfg.model.name}"
        raise ConfigError("model.tiled", f"{text}; allowed: false")


def request_place(cfg: RunConfig) -> Row:
    """The first columns of a request's rows."""
    images, others = len(read_prompts(cfg)), ", ".join(borrowed(cfg.cluster, cfg.devices))
    return place(cfg) | {
        "asked": cfg.devices,
        "images": images,
        "frames": cfg.model.frames,
        "front": cfg.measure.front,
        "borrowed": others,
    }


def able(cfg: RunConfig, model: Model) -> str | None:
    """Why the cluster has no such N; whatever else a product cannot be is the product's own reason."""
    request = check_node(cfg)
    return None if request is None else str(request)
