"""Grids: every combination of lists of values as whole run configurations, and the columns that tell them apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import product
from typing import Any

from omegaconf import DictConfig, OmegaConf

from baselines.tensor import CROSS
from experiments.command.check import check_node
from experiments.command.compose import compose_one
from experiments.config import CONF, ClusterConfig, ModelConfig, RunConfig, from_hydra
from experiments.errors import ConfigError, check_known, config_names
from experiments.methods import METHODS, find_problem, finds_warmup
from experiments.models.model import Model
from experiments.runs.check import CHOICES, check_shares
from pipefusion.core.cache import CACHES
from pipefusion.core.checks import AUTO
from pipefusion.core.cut import AXES
from pipefusion.core.domain import (
    Count,
    Devices,
    Guidance,
    Natural,
    PatchCounts,
    Pixels,
    Share,
    Steps,
    Threshold,
    Warmups,
)
from pipefusion.core.parallel import Parallel, degrees
from pipefusion.core.residuals import COMPRESS
from pipefusion.core.split import SPLITS
from pipefusion.method import FORECASTS, ORDERS, RINGS, TEXTS

ALL_STEPS, STAGES = "S", "N"
"""W as many as there are steps, M as many as there are stages."""
SETTINGS = {
    "patches": "patches",
    "warmups": "warmup",
    "warmup_thresholds": "warmup_threshold",
    "splits": "split",
    "rings": "ring",
    "texts": "text",
    "crosses": "cross",
    "patch_axes": "patch_axis",
    "strides": "stride",
    "time_shifts": "time_shift",
    "fractions": "fraction",
    "orders": "order",
    "forecasts": "forecast",
    "compresses": "compress",
    "micro_batches": "micro_batches",
    "sync_layers": "sync_layers",
    "caches": "cache",
    "cache_thresholds": "cache_threshold",
}
"""Lists of a grid, and the key of the methods that have it."""


@dataclass
class GridConfig:
    """Lists of values, of which every combination is a cell. An empty list is the run's own value.

    `models` and `clusters` are files of conf/; `resolutions` pixels of a square's side; `products` degrees beside the
    method's own axis. The lists after them are tried where a method has the key. W `S` is as many as there are steps, M
    `N` as many as there are stages. W `auto` is for studies that let a run find W out.
    """

    models: list[str] = field(default_factory=list)
    clusters: list[str] = field(default_factory=list)
    resolutions: list[Pixels] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    devices: list[Devices] = field(default_factory=list)
    products: list[Parallel] = field(default_factory=list)
    steps: list[Steps] = field(default_factory=list)
    guidance_scales: list[Guidance] = field(default_factory=list)
    schedulers: list[str] = field(default_factory=list)
    patches: list[PatchCounts] = field(default_factory=list)
    warmups: list[Warmups] = field(default_factory=list)
    warmup_thresholds: list[Threshold] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    rings: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    crosses: list[str] = field(default_factory=list)
    patch_axes: list[str] = field(default_factory=list)
    strides: list[Count] = field(default_factory=list)
    time_shifts: list[bool] = field(default_factory=list)
    fractions: list[Share] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    forecasts: list[str] = field(default_factory=list)
    compresses: list[str] = field(default_factory=list)
    micro_batches: list[bool] = field(default_factory=list)
    sync_layers: list[list[Natural]] = field(default_factory=list)
    caches: list[str] = field(default_factory=list)
    cache_thresholds: list[Threshold] = field(default_factory=list)


@dataclass
class GridsConfig(GridConfig):
    """A grid, or several: each of `grids` is the grid with what it gives itself in place of the same lists."""

    grids: list[GridConfig] = field(default_factory=list)

    def each(self) -> list[GridConfig]:
        """The grids, whole."""
        return [over(self, grid) for grid in self.grids or [GridConfig()]]


def over(lists: GridConfig, grid: GridConfig) -> GridConfig:
    """A grid with `lists` where it has none of its own."""
    names = [one.name for one in fields(GridConfig)]
    return GridConfig(**{name: getattr(grid, name) or getattr(lists, name) for name in names})


def expand(cfg: RunConfig, grid: GridConfig) -> Iterator[RunConfig]:
    """Every combination of a grid's lists, each run once: what a method has no key for makes no difference to it."""
    found: set[str] = set()
    models = [model_config(name) for name in grid.models] or [cfg.model]
    clusters = [cluster_config(name) for name in grid.clusters] or [cfg.cluster]
    sides: list[int | None] = [*grid.resolutions] or [None]
    scales: list[float | None] = [*grid.guidance_scales] or [cfg.guidance_scale]
    methods = [METHODS[name].Config(heads=cfg.method.heads) for name in grid.methods] or [cfg.method]
    outer = product(
        clusters,
        models,
        sides,
        methods,
        grid.devices or [cfg.devices],
        grid.products or [cfg.parallel],
        grid.steps or [cfg.steps],
        scales,
        grid.schedulers or [cfg.scheduler],
    )
    for cluster, model, side, method, devices, given, steps, scale, scheduler in outer:
        sized = model if side is None else replace(model, resolution=side, height=None, width=None)
        one = replace(cfg, cluster=cluster, model=sized, method=method, steps=steps)
        one = replace(one, parallel=given, guidance_scale=scale, scheduler=scheduler)
        # No axis is serial's own: `devices` is meant for the methods beside it.
        one = replace(one, devices=given.world if METHODS[method.name].axis is None else devices)
        for run in variants(one, grid):
            if repr(run) not in found:
                found.add(repr(run))
                yield run


def variants(cfg: RunConfig, grid: GridConfig) -> Iterator[RunConfig]:
    """A run with every combination of the settings that its method has."""
    method = METHODS[cfg.method.name]
    lists = {
        key: getattr(grid, name) for name, key in SETTINGS.items() if getattr(grid, name) and method.has(key)
    }
    for values in product(*lists.values()):
        given = dict(zip(lists, values, strict=True))
        if given.get("cache", cfg.method.cache) == "none":
            given["cache_threshold"] = cfg.method.cache_threshold
        if "warmup_threshold" in given and given.get("warmup") != AUTO:
            given["warmup_threshold"] = cfg.method.warmup_threshold
        if given.get("warmup") == ALL_STEPS:
            given["warmup"] = cfg.steps
        if given.get("patches") == STAGES:
            found = degrees(method.axis, cfg.parallel, cfg.devices)
            given["patches"] = found.pipe if isinstance(found, Parallel) else cfg.devices
        yield replace(cfg, method=replace(cfg.method, **given))


def serial_reference(cfg: RunConfig) -> RunConfig:
    """What a run is compared with: the same steps, guidance, scheduler and size on one device."""
    return replace(cfg, method=METHODS["serial"].Config(), devices=1, parallel=Parallel())


def place(cfg: RunConfig) -> dict[str, Any]:
    """The first columns of every row of a cell; `cfg` as `models.resolved` gives it."""
    found, own = degrees(METHODS[cfg.method.name].axis, cfg.parallel, cfg.devices), cfg.method
    unknown = "warmup" if finds_warmup(own) else "warmup_threshold"
    return {
        "cluster": cfg.cluster.name,
        "model": cfg.model.name,
        "resolution": cfg.model.resolution,
        "height": cfg.model.resolution or cfg.model.height,
        "width": cfg.model.resolution or cfg.model.width,
        "method": own.name,
        "devices": cfg.devices,
        "parallel": str(found) if isinstance(found, Parallel) else str(cfg.parallel),
        "steps": cfg.steps,
        "guidance_scale": cfg.guidance_scale,
        "scheduler": cfg.scheduler,
        **{"ring_form" if key == "ring" else key: getattr(own, key, None) for key in SETTINGS.values()},
        unknown: None,
    }


def problem(cfg: RunConfig, model: Model) -> str | None:
    """Why a cell cannot run, as `KEY=VALUE ...; allowed: ...`: the one rule for what is skipped."""
    found = run_problem(cfg, model)
    if found is None and finds_warmup(cfg.method):
        return f"method.warmup={AUTO} is a number only after a run; allowed: a number, or measure=latency"
    return found


def run_problem(cfg: RunConfig, model: Model) -> str | None:
    """The same in a study that lets a run find W out."""
    found = find_problem(model.shape, cfg)
    if found is not None:
        return f"{found.key}={found.message}"
    request = check_shares(cfg, model) or check_node(cfg)
    return None if request is None else str(request)


def check_grid(grid: GridConfig, key: str = "measure") -> None:
    """Raises ConfigError for names that do not exist, and for M and W that are no numbers."""
    allowed = {
        "models": config_names("model"),
        "clusters": config_names("cluster"),
        "methods": METHODS,
        "schedulers": CHOICES["scheduler"],
        "splits": SPLITS,
        "rings": RINGS,
        "texts": TEXTS,
        "crosses": CROSS,
        "patch_axes": AXES,
        "compresses": COMPRESS,
        "orders": ORDERS,
        "forecasts": FORECASTS,
        "caches": CACHES,
    }
    try:
        check_known(grid, allowed)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error.key}", error.message) from None
    for name, allowed_words in (("patches", (STAGES,)), ("warmups", (ALL_STEPS, AUTO))):
        for value in getattr(grid, name):
            if not isinstance(value, int) and value not in allowed_words:
                text = f"{value!r} is no number; allowed: whole numbers, {', '.join(allowed_words)}"
                raise ConfigError(f"{key}.{name}", text)


def model_config(name: str) -> ModelConfig:
    """The model of `conf/model/NAME.yaml`."""
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), *model_files(name)))
    assert isinstance(config, ModelConfig)
    return config


def model_files(name: str) -> list[DictConfig]:
    """The file of a model behind that of the model that it is a form of, if any."""
    content = OmegaConf.load(CONF / "model" / f"{name}.yaml")
    assert isinstance(content, DictConfig)
    others = [one for one in content.pop("defaults", []) if isinstance(one, str) and one != "_self_"]
    return [file for one in others for file in model_files(one)] + [content]


@cache
def cluster_config(name: str) -> ClusterConfig:
    """The cluster of `conf/cluster/NAME.yaml`."""
    return from_hydra(compose_one([f"cluster={name}"])).cluster
