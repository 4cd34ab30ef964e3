"""Naive patch parallelism: after W synchronous steps nothing is exchanged any more. The floor of quality.

Each device keeps refreshing its own K, V and sees everybody else's as they were in the last synchronous step (zeros
when W = 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from baselines.displaced import check_bands, displaced_prediction, displaced_sampler
from pipefusion.core.closed_forms import Prediction
from pipefusion.core.dit import DiT, Problem, Sampler
from pipefusion.core.domain import Warmup
from pipefusion.core.fabric import Fabric
from pipefusion.core.shape import DiTShape


@dataclass
class Config:
    """`warmup` W: synchronous steps at the start."""

    name: str = "naive_patch"
    axis: str = "patch"
    warmup: Warmup = 1


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """Equal bands; W between 0 and S."""
    return check_bands(shape, devices, steps, cfg.warmup)


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """All layers on a band of rows, with a full-length K, V buffer that only the warm-up fills."""
    return displaced_sampler(dit, fabric, cfg.axis, scheduler, cfg.warmup, exchange=False)


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> Prediction:
    """An all-gather in each of the W synchronous steps, nothing after."""
    return displaced_prediction(shape, devices, batch, images, cfg.warmup)
