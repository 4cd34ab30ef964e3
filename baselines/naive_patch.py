"""Naive patch parallelism: after W synchronous steps nothing is exchanged any more. The floor of quality.

Each device keeps refreshing its own K, V and sees everybody else's as they were in the last synchronous step (zeros
when W = 0).
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.displaced import AXIS as AXIS
from baselines.displaced import Bands, build_bands, check_bands, check_layers, predict_bands
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape


@dataclass
class Config(Bands):
    """`warmup` W synchronous steps at the start, `sync_layers` that are synchronous in all."""

    name: str = "naive_patch"


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Equal bands; W between 0 and S; layers of the model."""
    bands = check_bands(shape, parallel, steps, cfg)
    return bands or check_layers(shape, cfg.sync_layers)


def build(dit: DiT, fabric: Fabric, cfg: Config) -> Sampler:
    """All layers on a band of rows, with every layer's full-length K, V on every device."""
    return build_bands(dit, fabric, cfg, exchange=False)


def predict(
    shape: DiTShape, parallel: Parallel, rank: int, steps: int, images: int, branches: int, cfg: Config
) -> Prediction:
    """An all-gather in each of the W synchronous steps, nothing after."""
    gathers = cfg.warmup
    return predict_bands(shape, parallel, rank, steps, images, branches, cfg, gathers)
