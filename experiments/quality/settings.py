"""What is compared: grids of methods and settings, each resolved to one run's configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from experiments.check import check_method, check_model, check_values
from experiments.config import LatencyConfig, RunConfig
from experiments.errors import ConfigError, nearest
from experiments.methods import METHODS
from experiments.models import open_model
from pipefusion.core.domain import Devices, Grid, Guidance, Natural, Patches, Pixels, Steps, Warmups

ALL_STEPS = "S"


@dataclass
class StudyConfig:
    """One grid of a study: every combination of its lists is a setting; what a method has no key for is left out.

    An empty list is the run's own value. `warmup` "S" is as many as there are steps. `pictures` 0 is the measure's.
    """

    study: str = "main"
    method: Grid[str] = field(default_factory=list)
    devices: Grid[Devices] = field(default_factory=lambda: [4])
    patches: Grid[Patches] = field(default_factory=lambda: [4])
    warmup: Grid[Warmups] = field(default_factory=lambda: [1])
    steps: list[Steps] = field(default_factory=list)
    guidance_scale: list[Guidance] = field(default_factory=list)
    scheduler: list[str] = field(default_factory=list)
    resolution: list[Pixels] = field(default_factory=list)
    pictures: Natural = 0


@dataclass(frozen=True)
class Setting:
    """One way to sample. `patches` and `warmup` are None where the method has no such key."""

    method: str
    devices: int
    patches: int | None
    warmup: int | None
    steps: int
    guidance_scale: float
    scheduler: str
    resolution: int

    @property
    def key(self) -> str:
        """A name that can be a folder's: `pipefusion_N4_M4_W1_S20_g2_shipped_64px`."""
        parts = [self.method, f"N{self.devices}"]
        parts += [f"M{self.patches}"] if self.patches is not None else []
        parts += [f"W{self.warmup}"] if self.warmup is not None else []
        parts += [f"S{self.steps}", f"g{self.guidance_scale:g}", self.scheduler, f"{self.resolution}px"]
        return "_".join(parts)

    @property
    def serial(self) -> Setting:
        """What it is compared with: the same steps, guidance, scheduler and size on one device."""
        return replace(self, method="serial", devices=1, patches=None, warmup=None)

    @property
    def stand_in(self) -> Setting:
        """The setting whose pictures should be the very same: claimed here, and measured before it is used.

        Serial where nothing is ever stale; a method whose patches are not its devices depends on M and W and not on N.
        """
        own = {"warmup": self.warmup, "patches": self.patches}
        method = METHODS[self.method]
        if method.never_stale(self.steps, own):
            return self.serial
        return replace(self, devices=1) if method.has("patches") else self

    def configure(self, base: RunConfig) -> RunConfig:
        """The configuration of one run with this setting."""
        own = {"patches": self.patches, "warmup": self.warmup}
        method = METHODS[self.method].Config(**{k: v for k, v in own.items() if v is not None})
        return replace(
            base,
            method=method,
            devices=self.devices,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            scheduler=self.scheduler,
            model=replace(base.model, resolution=self.resolution),
            measure=LatencyConfig(),
        )


@dataclass(frozen=True)
class Equality:
    """Largest difference of a setting's latents from its stand-in's, over the largest latent, in float32."""

    error: float
    pictures: int

    @property
    def holds(self) -> bool:
        """The order of sums, and what some tens of steps make of it, stays below 1e-4."""
        return self.error <= 1e-4


@dataclass
class Planned:
    """A setting on its way: the studies that ask for it, how many pictures they want at most, what came of it."""

    setting: Setting
    studies: list[str] = field(default_factory=list)
    pictures: int = 0
    equality: Equality | None = None
    ended: tuple[str, str] | None = None
    """Status and reason of what was skipped or failed."""

    @property
    def source(self) -> Setting:
        """The setting whose pictures these are: its stand-in where the two were measured to be the same."""
        return self.setting.stand_in if self.equality and self.equality.holds else self.setting


def settings_of(cfg: RunConfig) -> list[Planned]:
    """Every setting once, and the serial one that each is compared with. `cfg` as `launch.resolved` gives it."""
    found: dict[Setting, Planned] = {}

    def add(setting: Setting, pictures: int, study: str | None = None) -> None:
        planned = found.setdefault(setting, Planned(setting))
        planned.pictures = max(planned.pictures, pictures)
        if study is not None and study not in planned.studies:
            planned.studies.append(study)

    for grid in cfg.measure.studies:
        for setting in expand(grid, cfg):
            pictures = grid.pictures or cfg.measure.pictures
            add(setting, pictures, grid.study)
            add(setting.serial, pictures)
    return list(found.values())


def expand(grid: StudyConfig, cfg: RunConfig) -> Iterator[Setting]:
    """The settings of one grid."""
    default: dict[str, Sequence[Any]] = {
        "steps": [cfg.steps],
        "guidance_scale": [cfg.guidance_scale],
        "scheduler": [cfg.scheduler],
        "resolution": [cfg.model.resolution],
    }
    common = [getattr(grid, name) or values for name, values in default.items()]
    for method, devices, *rest in product(grid.method, grid.devices, *common):
        has, steps = METHODS[method].has, rest[0]
        warmups = [steps if w == ALL_STEPS else w for w in grid.warmup] if has("warmup") else [None]
        patches = grid.patches if has("patches") else [None]
        for m, w in product(patches, warmups):
            yield Setting(method, 1 if method == "serial" else devices, m, w, *rest)


def check_settings(cfg: RunConfig) -> None:
    """Raises ConfigError for a grid that is empty or has an unknown method, and for what no method could run."""
    for index, grid in enumerate(cfg.measure.studies):
        for name in grid.method:
            if name not in METHODS:
                text = f"{name!r} is unknown{nearest(name, METHODS)}; allowed: {', '.join(METHODS)}"
                raise ConfigError(f"measure.studies.{index}.method", text)
        for w in grid.warmup:
            if w != ALL_STEPS and not isinstance(w, int):
                text = f"{w!r} is no number of steps; allowed: 0 or more, or {ALL_STEPS!r} for all of them"
                raise ConfigError(f"measure.studies.{index}.warmup", text)
    for planned in settings_of(cfg):
        one = planned.setting.configure(cfg)
        check_values(one)
        check_model(one)


def why_not(setting: Setting, cfg: RunConfig) -> str | None:
    """What keeps the method from this setting, or None: such a setting is a row that says `skipped`."""
    one = setting.configure(cfg)
    problem = check_method(one, open_model(one.model))
    return None if problem is None else str(problem)
