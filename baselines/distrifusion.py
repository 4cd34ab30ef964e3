"""Displaced patch parallelism (DistriFusion, arXiv 2402.19481) on a DiT: N = M, one patch and all layers a device.

Self-attention sees its own fresh K, V and everybody else's of the step before; the exchange hides behind a step.
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

    name: str = "distrifusion"
    axis: str = "patch"
    warmup: Warmup = 1


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """Equal bands; W between 0 and S."""
    return check_bands(shape, devices, steps, cfg.warmup)


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """All layers on a band of rows, with every layer's full-length K, V on every device."""
    return displaced_sampler(dit, fabric, cfg.axis, scheduler, cfg.warmup, exchange=True)


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> Prediction:
    """Table 1: 2 O(p hs) L a step, KV of all L layers. The last step sends nothing unless it is synchronous."""
    gathers = steps if cfg.warmup == steps else steps - 1
    return displaced_prediction(shape, devices, batch, images, gathers)
