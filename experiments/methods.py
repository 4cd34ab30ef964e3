"""The one table of methods. A new method is its file, its YAML in conf/method, and its row here.

Whoever asks something of a method asks its row; nobody else keeps a list of methods or of what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

import pipefusion.method as pipefusion
from baselines import (
    asyncdiff,
    distrifusion,
    naive_patch,
    parastep,
    pcpp,
    ring,
    serial,
    sync_pipeline,
    tensor,
    ulysses,
)
from experiments.config import RunConfig
from experiments.errors import ConfigError
from pipefusion.core.checks import AUTO
from pipefusion.core.cut import cutting
from pipefusion.core.dit import Sampler
from pipefusion.core.grid import Band
from pipefusion.core.layout import prompt_shares
from pipefusion.core.parallel import Parallel, degrees
from pipefusion.core.predict import Prediction
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape

Attends = Callable[[DiTShape, Parallel, Any, Band], Sequence[int]]
"""attends(shape, parallel, cfg, rows): token rows whose K, V a job on `rows` attends to after the warm-up."""


def to_all(shape: DiTShape, parallel: Parallel, cfg: Any, rows: Band) -> Sequence[int]:
    """The whole image."""
    return range(shape.lines)


@dataclass(frozen=True)
class Method:
    """A method's own functions and the facts that tests, replays and measures hold it to.

    `exact`: it equals serial, with the same step cache, whatever its settings. One that is not has a `warmup` key,
    equals serial with as many synchronous steps as there are steps, and says what is stale after them, in the words of
    the reference that replays it. Of K, V of other patches a job sees the newest there are (`own`, as PipeFusion
    writes them), those of a whole step ago (`displaced`), or those of the last synchronous step (`frozen`); or no K, V
    are stale but the input of a stage, which was made in the step before (`input`; PipeFusion's as well in rotational
    order, see `late_inputs`), or the noise that a rank advances its latent with, which it has predicted in the round
    before (`noise`). Of one that is exact unless it compresses, `stale` says what that does: K, V of others
    are of this step, as they are rebuilt from residuals (`rebuilt`).
    """

    Config: type[Any]
    axis: str | None
    check: Callable[..., Problem | None]
    build: Callable[..., Sampler]
    predict: Callable[..., Prediction]
    exact: bool
    stale: Literal["own", "displaced", "frozen", "input", "noise", "rebuilt"] | None = None
    attends: Attends = to_all

    def apart(self, shape: DiTShape, ulysses: int) -> tuple[str, ...]:
        """The axes on which ranks have programs of their own; on all others they do the same beside other peers.

        These are steps of a round, stages, bands that do not see as much as others, and so many Ulysses ranks whose
        shares of a prompt are not equal in every layer.
        """
        bands = () if self.attends is to_all else ("patch",)
        layers = range(shape.layers)
        shares = {
            tuple(shape.own_prefix(layer, share) for layer in layers)
            for share in prompt_shares(shape, ulysses)
        }
        return ("step", "pipe", *bands, *(("ulysses",) if len(shares) > 1 else ()))

    def parallel(self, devices: int, given: Parallel | None = None) -> Parallel:
        """All degrees of `devices` ranks: its own axis has what the `given` ones leave. Raises ConfigError."""
        found = degrees(self.axis, given or Parallel(), devices)
        if isinstance(found, Problem):
            raise ConfigError(found.key, found.message)
        return found

    def problem(
        self, shape: DiTShape, devices: int, steps: int, settings: Any, given: Parallel | None = None
    ) -> Problem | None:
        """What keeps the method from running so on this model, or None."""
        found = degrees(self.axis, given or Parallel(), devices)
        return found if isinstance(found, Problem) else self.check(shape, found, steps, settings)

    def has(self, key: str) -> bool:
        """Whether its configuration has a key: `patches` where they are not its devices, `warmup`, `split`."""
        return key in self.Config.__dataclass_fields__

    @property
    def stale_kv(self) -> bool:
        """Whether K, V may be stale; they are kept from step to step."""
        return not self.exact and self.stale not in ("input", "noise")

    def late_inputs(self, settings: Mapping[str, Any]) -> bool:
        """Whether stages read what was made in an earlier step: no stage waits, and they decide the result."""
        return self.stale == "input" or settings.get("order") == "rotational"

    def stages_decide(self, settings: Mapping[str, Any]) -> bool:
        """Whether the result depends on how layers are cut: inputs of stages are late, or lose something on the way."""
        lossy = self.axis == "pipe" and settings.get("compress", "none") != "none"
        return lossy or self.late_inputs(settings)

    def never_stale(self, steps: int, settings: Mapping[str, Any]) -> bool:
        """Whether a run must equal serial: the method is exact, all steps are synchronous, or one patch is sent whole.

        An exact one serial with the same step cache. With one patch W decides from which step on a cache may skip.
        """
        if self.exact:
            return settings.get("compress", "none") == "none" or settings["whole_steps"] >= steps
        whole = settings.get("patches") == 1 and settings.get("compress", "none") == "none"
        return settings.get("warmup") == steps or (whole and not caches(settings))


def caches(settings: Mapping[str, Any]) -> bool:
    """Whether a step cache decides what is computed."""
    return bool(settings.get("cache", "none") != "none")


def finds_warmup(settings: Any) -> bool:
    """Whether W is found out in the run."""
    return bool(getattr(settings, "warmup", None) == AUTO)


def with_warmup(settings: Any, warmup: int | None) -> Any:
    """The settings with this W where they leave it to the run."""
    return replace(settings, warmup=warmup) if finds_warmup(settings) else settings


def parallel_degrees(cfg: RunConfig) -> Parallel:
    """All degrees of a run. Raises ConfigError."""
    return METHODS[cfg.method.name].parallel(cfg.devices, cfg.parallel)


def beside(cfg: RunConfig) -> dict[str, int]:
    """The degrees beside the method's own axis."""
    own = METHODS[cfg.method.name].axis
    return {axis: degree for axis, degree in cfg.parallel.axes.items() if axis != own}


def find_problem(shape: DiTShape, cfg: RunConfig) -> Problem | None:
    """What keeps a run from this model, or None."""
    blind, share = cfg.cluster.world == "plan", cfg.method.cache_computed
    if blind and caches(vars(cfg.method)) and share is None:
        text = f"{cfg.method.cache} skips by values, and predicted hardware computes none"
        how = "none, method.cache_computed=SHARE of the decisions, or cluster=local, sim"
        return Problem("method.cache", f"{text}; allowed: {how}")
    if share is not None and not (blind and caches(vars(cfg.method))):
        text = f"{share} is for step caches on predicted hardware"
        return Problem("method.cache_computed", f"{text}; allowed: null")
    if finds_warmup(cfg.method) and not METHODS[cfg.method.name].has("warmup_threshold"):
        return Problem("method.warmup", f"{AUTO} is not known of {cfg.method.name}; allowed: a number")
    if cfg.cluster.world == "plan" and finds_warmup(cfg.method):
        text = f"{AUTO} is found out from values, and predicted hardware computes none"
        return Problem("method.warmup", f"{text}; allowed: a number, or cluster=local, sim")
    return METHODS[cfg.method.name].problem(shape, cfg.devices, cfg.steps, cfg.method, cfg.parallel)


def row(module: ModuleType, **facts: Any) -> Method:
    """The row of a module that has `Config`, `check`, `build` and `predict`."""
    return Method(module.Config, module.AXIS, *cutting(module), **facts)


METHODS: dict[str, Method] = {
    "serial": row(serial, exact=True),
    "sync_pipeline": row(sync_pipeline, exact=True),
    "tensor": row(tensor, exact=True),
    "ulysses": row(ulysses, exact=True),
    "ring": row(ring, exact=True, stale="rebuilt"),
    "naive_patch": row(naive_patch, exact=False, stale="frozen"),
    "asyncdiff": row(asyncdiff, exact=False, stale="input"),
    "parastep": row(parastep, exact=False, stale="noise"),
    "pcpp": row(pcpp, exact=False, stale="displaced", attends=pcpp.attends),
    "distrifusion": row(distrifusion, exact=False, stale="displaced"),
    "pipefusion": row(pipefusion, exact=False, stale="own"),
}
