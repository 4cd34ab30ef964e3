"""The cells of `measure=staleness`: probes, serial, and every method at each W that it is run at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated

from experiments.config import RunConfig, read_prompts
from experiments.errors import ConfigError, check_known
from experiments.grid import GridConfig, check_grid, expand, place
from experiments.journal import Row
from experiments.methods import METHODS
from experiments.models.model import Model, open_model
from experiments.runs.check import check_model
from experiments.session import Session
from experiments.spaced import spaced
from pipefusion.core.domain import (
    Count,
    Devices,
    Domain,
    Grid,
    PatchCounts,
    Patches,
    Threads,
    Warmup,
    Warmups,
)
from pipefusion.core.parallel import Parallel

TASK = ("models", "resolutions", "steps", "guidance_scales", "schedulers")
"""Lists that may have one value: tables and figures are of one model and size."""


@dataclass
class FreshnessConfig(GridConfig):
    """What is probed. Of the model its sizes alone matter."""

    models: list[str] = field(default_factory=lambda: ["pixart_tiny"])
    steps: list[Annotated[int, Domain(2, 10_000)]] = field(default_factory=lambda: [8])
    methods: Grid[str] = field(default_factory=lambda: list(METHODS))
    devices: Grid[Devices] = field(default_factory=lambda: [4, 2])
    patches: list[PatchCounts] = field(default_factory=lambda: [4, 8])
    warmups: list[Warmups] = field(default_factory=lambda: [1, 0])


@dataclass
class StalenessConfig(GridConfig):
    """`pictures` of as many prompts. `methods` run at W = `watched`, where attention is watched and the map drawn, and
    those of them that are `swept` at each of `warmups` as well. `bands` of rows, or of a video's latent frames:
    redundancy is measured in each. `matching`: of the prompts only those of this regular expression.

    A method that has M of its own runs on a pipe of one device, unless its result depends on N.
    """

    name: str = "staleness"
    pictures: Count = 16
    matching: str = ".*"
    bands: Patches = 4
    devices: Grid[Devices] = field(default_factory=lambda: [4])
    patches: list[PatchCounts] = field(default_factory=lambda: [4])
    methods: Grid[str] = field(default_factory=lambda: [name for name in METHODS if METHODS[name].stale_kv])
    watched: Warmup = 1
    swept: list[str] = field(default_factory=lambda: ["distrifusion", "pipefusion"])
    warmups: list[Warmups] = field(default_factory=lambda: [0, 1, 2, 4])
    probe: FreshnessConfig = field(default_factory=FreshnessConfig)
    workers: Threads | None = None


def cells(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """The probes, then serial, then every method at each W, each once."""
    options: StalenessConfig = cfg.measure
    for one in expand(cfg, options.probe):
        pictures = [f"picture {number}" for number in range(one.parallel.data)]
        yield replace(one, measure=options.probe, prompt=pictures, prompt_file=None, seed=0)
    base = replace(cfg, measure=replace(options, swept=[], probe=FreshnessConfig()))  # which decide no result
    runs = [pictured(serial_run(base))]
    for method in options.methods:
        warmups = {options.watched, *(options.warmups if method in options.swept else [])}
        in_order = sorted(warmups, key=lambda w: (isinstance(w, str), w))
        for one in expand(base, replace(options, methods=[method], warmups=in_order)):
            own = METHODS[method].has("patches") and not METHODS[method].stages_decide(vars(one.method))
            runs.append(pictured(replace(one, devices=one.parallel.world) if own else one))
    yield from {repr(one): one for one in runs}.values()


def serial_run(cfg: RunConfig) -> RunConfig:
    """What the other runs are compared with."""
    grid = replace(cfg.measure, methods=["serial"], products=[Parallel()])
    return next(expand(cfg, grid))


def pictured(cfg: RunConfig) -> RunConfig:
    """The run with its prompts, evenly spaced over those listed, and a seed for each, counted from the run's own."""
    prompts = spaced(listed_prompts(cfg, open_model(cfg.model)), cfg.measure.pictures)
    seeds = [cfg.seed + picture for picture in range(len(prompts))]
    return replace(cfg, prompt=prompts, prompt_file=None, images_per_prompt=1, seed=seeds)


def listed_prompts(cfg: RunConfig, model: Model) -> list[str]:
    """The prompts that the model was trained on, where its folder lists them, else the run's own; those that match."""
    listed = read_prompts(cfg) if model.prompts is None else model.prompts["train"]
    return [prompt for prompt in listed if re.fullmatch(cfg.measure.matching, prompt)]


def place_in_table(cfg: RunConfig) -> Row:
    """The first columns of a cell's rows, and the table that it has one row of, or all."""
    if isinstance(cfg.measure, FreshnessConfig):
        return place(cfg) | {"table": "probe"}
    return place(cfg) | {"table": "redundancy" if cfg.method.name == "serial" and cfg.devices == 1 else "run"}


def check_staleness(cfg: RunConfig, session: Session) -> None:
    """Names that do not exist, numbers that measure nothing. Raises ConfigError."""
    options: StalenessConfig = cfg.measure
    check_known(cfg, {"measure.swept": options.methods})
    try:
        re.compile(options.matching)
    except re.error as error:
        text = f"{options.matching!r} is no regular expression ({error}); allowed: one, as .*"
        raise ConfigError("measure.matching", text) from None
    check_grid(options.probe, "measure.probe")
    for name in TASK:
        if len(given := getattr(options.probe, name)) > 1:
            raise ConfigError(f"measure.probe.{name}", f"{given} are several; allowed: one")
    if not isinstance(cfg.seed, int):
        raise ConfigError("seed", f"{cfg.seed} is no number; allowed: one number, of the first picture")
    serial = serial_run(cfg)
    if serial.steps < 2:
        raise ConfigError("steps", f"{serial.steps} leaves no step with an age; allowed: 2 or more")
    if serial.model.dtype != "float32":
        text = f"{serial.model.dtype} has errors of its own; allowed: float32"
        raise ConfigError("model.dtype", text)
    model = check_model(serial)
    if model.shape.references:
        raise ConfigError(
            "model", f"a {model.class_name} that edits pictures is not measured here; allowed: another"
        )
    listed = len(listed_prompts(serial, model))
    if options.pictures > listed:
        text = f"{options.pictures} pictures, and there are {listed} prompts; allowed: 1..{listed}"
        raise ConfigError("measure.pictures", text)
    timesteps = session.scheduler(serial).timesteps
    if len(timesteps.unique()) < len(timesteps):
        raise ConfigError("steps", f"{serial.steps} makes timesteps that repeat; allowed: fewer")
