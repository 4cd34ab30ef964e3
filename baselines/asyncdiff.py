"""AsyncDiff (arXiv 2406.06911) on a DiT: stages of layers that all compute at once, each on an input of a step before.

The layers are cut into N stages, as PipeFusion's. After W synchronous steps, stage d of step t works on the whole image
as stage d - 1 left it in step t - 1, so that no stage waits for another one within a step; a prediction descends from
the latent of N - 1 steps before. Nothing is kept of K, V. With `stride` 2 stages compute in every second step only, and
their prediction moves the latent by two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pipefusion.core.cache import no_cache
from pipefusion.core.checks import Settings, degrees_fit, splits, within
from pipefusion.core.denoise import assemble
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.domain import Domain, Natural
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.predict import predict as predict_bytes
from pipefusion.core.problem import Problem
from pipefusion.core.sequence import ring, ulysses
from pipefusion.core.shape import DiTShape

AXIS = "pipe"


@dataclass
class Config(Settings):
    """`warmup` W, at least one: the first inputs of an earlier step are those of the last synchronous one.

    `stride`: compute in every step, or in every second one. `time_shift`: a stage gets the timestep of the step that
    its input was made in, and not of its own. `split` of the layers over the stages, see `sync_pipeline`.
    """

    name: str = "asyncdiff"
    warmup: Annotated[int, Domain(1, 10_000)] = 1
    stride: Annotated[int, Domain(1, 2)] = 1
    time_shift: bool = False
    split: Annotated[Any, Natural] = "even"


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Stages as PipeFusion has them; W between 1 and S; no step cache, which goes by one step at a time."""
    return (
        no_cache(cfg, "stages of asyncdiff")
        or degrees_fit(shape, parallel, AXIS, cfg)
        or within("method.warmup", cfg.warmup, 1, steps, "the steps")
        or within("method.stride", cfg.stride, 1, 2, "steps that a prediction is used for")
        or splits(cfg.split, shape.layers, parallel.pipe)
    )


def build(dit: DiT, fabric: Fabric, cfg: Config) -> Sampler:
    """Keep this rank's stage; attention is that of the exact methods."""
    return assemble(
        dit,
        fabric,
        lambda run: ulysses(run, ring(run), cfg.qkv),
        split=cfg.split,
        warmup=cfg.warmup,
        stride=cfg.stride,
        time_shift=cfg.time_shift,
    )


def predict(
    shape: DiTShape, parallel: Parallel, rank: int, steps: int, images: int, branches: int, cfg: Config
) -> Prediction:
    """p * hs * b elements from every stage but the last per step that computes; of the last such step nobody reads."""
    return predict_bytes(
        shape,
        parallel,
        rank,
        steps,
        images,
        branches,
        split=cfg.split,
        warmup=cfg.warmup,
        stride=cfg.stride,
        qkv=cfg.qkv,
    )
