"""Displaced patch parallelism (DistriFusion, arXiv 2402.19481) on a DiT: N = M, one patch and all layers per device.

Self-attention sees its own fresh K, V and everybody else's of the step before; the exchange hides behind a step.
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

    name: str = "distrifusion"


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Equal bands; W between 0 and S; layers of the model."""
    bands = check_bands(shape, parallel, steps, cfg.warmup, cfg.heads)
    return bands or check_layers(shape, cfg.sync_layers)


def build(dit: DiT, fabric: Fabric, cfg: Config) -> Sampler:
    """All layers on a band of rows, with every layer's full-length K, V on every device."""
    return build_bands(dit, fabric, cfg, exchange=True)


def predict(
    shape: DiTShape, parallel: Parallel, rank: int, steps: int, images: int, branches: int, cfg: Config
) -> Prediction:
    """Table 1: 2 O(p hs) L per step, K, V of all L layers. The last step sends nothing unless it is synchronous."""
    gathers = steps if cfg.warmup == steps else steps - 1
    return predict_bands(shape, parallel, rank, steps, images, branches, cfg, gathers)
