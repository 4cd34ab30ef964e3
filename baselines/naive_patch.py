"""Naive patch parallelism: after W synchronous steps nothing is exchanged any more. The floor of quality.

Each device keeps refreshing its own K, V and sees everybody else's as they were in the last synchronous step (zeros
when W = 0).
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.displaced import AXIS as AXIS
from baselines.displaced import build_bands, check_bands
from pipefusion.core.checks import Settings
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.domain import Warmup
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.predict import predict as predict_bytes
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape


@dataclass
class Config(Settings):
    """`warmup` W: synchronous steps at the start."""

    name: str = "naive_patch"
    warmup: Warmup = 1


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Equal bands; W between 0 and S."""
    return check_bands(shape, parallel, steps, cfg.warmup, cfg.heads)


def build(dit: DiT, fabric: Fabric, cfg: Config) -> Sampler:
    """All layers on a band of rows, with every layer's full-length K, V on every device."""
    return build_bands(dit, fabric, cfg.warmup, exchange=False)


def predict(
    shape: DiTShape, parallel: Parallel, rank: int, steps: int, images: int, branches: int, cfg: Config
) -> Prediction:
    """An all-gather in each of the W synchronous steps, nothing after."""
    gathers = cfg.warmup
    return predict_bytes(shape, parallel, rank, steps, images, branches, buffer="displaced", gathers=gathers)
