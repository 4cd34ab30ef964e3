"""GPipe-like pipeline with one patch: the whole image goes through the stages, one stage busy at a time.

Exact, with no stale K, V and so no KV buffer: what PipeFusion is without its patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from baselines.exact import build as build
from baselines.exact import predict as predict
from pipefusion.core.checks import Settings, degrees_fit, micro_batches_fit, splits
from pipefusion.core.domain import Natural
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape

AXIS = "pipe"


@dataclass
class Config(Settings):
    """`split` of the layers over the stages: ceil, even, cost, bytes, or how many each has.

    `micro_batches`: images and guidance branches go through the stages one behind the other.
    """

    name: str = "sync_pipeline"
    split: Annotated[Any, Natural] = "even"
    micro_batches: bool = False


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """At least one layer per stage, or as `split` has it."""
    fit = degrees_fit(shape, parallel, AXIS, cfg)
    parts = micro_batches_fit(parallel, cfg, cfg.micro_batches)
    return fit or splits(cfg.split, shape.layers, parallel.pipe) or parts
