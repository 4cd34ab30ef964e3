"""What is compared: settings, each one run's configuration with its pictures, and what they are compared with.

A picture depends on its prompt, its seed and the setting alone: picture k has prompt k and seed `seed` + k.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from experiments.config import RunConfig
from experiments.grid import place, serial_reference
from experiments.journal import Row
from experiments.methods import METHODS, beside
from pipefusion.core.parallel import Parallel, degrees

UNSEEN = ("split", "ring", "micro_batches")
"""Keys of displaced methods that decide where and how, and not what, is computed."""


@dataclass
class SampleConfig:
    """What decides pictures besides the run. `exact`: latents in float32 as they come, simulated, and no pictures."""

    name: str = "sample"
    batch: int = 1
    device: str = "cpu"
    exact: bool = False


@dataclass(frozen=True)
class Eyes:
    """The networks that look at pictures; `weights` tells files that were given from others."""

    network: str = "efficientnet_lite0"
    clip: str | None = None
    weights: str = ""


@dataclass
class SettingConfig:
    """What decides the numbers of a setting. `pictures` are its own; `drawn` those of the setting that they are taken
    from, `compared` those of serial. `what`: the name of a floor, which has no studies.
    """

    name: str = "setting"
    studies: list[str] = field(default_factory=list)
    what: str | None = None
    pictures: int = 0
    drawn: int = 0
    compared: int = 0
    fewest: int = 0
    resamples: int = 0
    equal_pictures: int = 0
    real: str | None = None
    data_dir: str = ""
    digest: str = ""  # of the real pictures
    captions: list[str] | None = None  # of the same, where they are known
    eyes: Eyes = field(default_factory=Eyes)
    sample: SampleConfig = field(default_factory=SampleConfig)

    @property
    def seen(self) -> bool:
        """Whether networks look at its pictures: fewer have no distances of distributions."""
        return self.pictures >= self.fewest


def stand_in(cfg: RunConfig) -> RunConfig:
    """The setting whose pictures should be the very same: claimed here, and measured before it is used.

    Serial where nothing is ever stale; else the same method with all degrees 1 but that of its patches.
    """
    method = METHODS[cfg.method.name]
    if method.never_stale(cfg.steps, vars(cfg.method)):
        alone = serial_reference(cfg)
        same = {key: getattr(cfg.method, key) for key in ("cache", "cache_threshold") if method.exact}
        return replace(alone, method=replace(alone.method, **same))
    found = degrees(method.axis, cfg.parallel, cfg.devices)
    if not isinstance(found, Parallel):
        return cfg
    if method.axis == "pipe" and getattr(cfg.method, "compress", "none") != "none" and found.lanes > 1:
        return cfg  # each of the ranks that share a patch compresses its own tokens
    own: Row = {}
    whole = method.has("patches") and not method.stages_decide(vars(cfg.method))
    if whole:
        own = {key: getattr(method.Config(), key) for key in UNSEEN if method.has(key)}
        own["patches"] = cfg.method.patches or found.pipe
    devices = 1 if whole else getattr(found, str(method.axis))
    return replace(cfg, method=replace(cfg.method, **own), devices=devices, parallel=Parallel())


def in_float32(cfg: RunConfig) -> RunConfig:
    """The setting without rounding to a shorter dtype."""
    return replace(cfg, model=replace(cfg.model, dtype="float32"))


def setting_name(cfg: RunConfig) -> str:
    """A name that can be a folder's: `pipefusion_N8_cfg2_M4_W1_S20_g2_shipped_64px`."""
    method, own = METHODS[cfg.method.name], cfg.method
    parts = [own.name, f"N{cfg.devices}", *(f"{axis}{n}" for axis, n in beside(cfg).items())]
    for symbol, key in (("M", "patches"), ("W", "warmup")):
        parts += [f"{symbol}{getattr(own, key)}"] if getattr(own, key, None) is not None else []
    usual = vars(method.Config()) | {
        key: getattr(own, key) for key in ("patches", "warmup") if method.has(key)
    }
    parts += [str(value) for key, value in vars(own).items() if value != usual[key]]
    sides = [str(side) for side in (cfg.model.resolution, cfg.model.height, cfg.model.width) if side]
    return "_".join(
        [*parts, f"S{cfg.steps}", f"g{cfg.guidance_scale:g}", cfg.scheduler, f"{'x'.join(sides)}px"]
    )


def setting_place(cfg: RunConfig) -> Row:
    """The first columns of a setting's rows."""
    columns = place(cfg) | {"product": " x ".join(f"{axis} {n}" for axis, n in beside(cfg).items()) or None}
    name, own = setting_name(cfg), {key: getattr(cfg.measure, key) for key in ("studies", "what", "pictures")}
    return columns | {"setting": name, "sampled_as": name, "dtype": cfg.model.dtype, **own}
