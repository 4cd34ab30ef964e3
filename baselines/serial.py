"""One device, the whole model, no communication: what every other method is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.exact import build as build
from baselines.exact import predict as predict
from pipefusion.core.checks import Settings, degrees_fit
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape

AXIS = None


@dataclass
class Config(Settings):
    """Nothing of its own to choose."""

    name: str = "serial"


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """One device, or what `parallel` alone makes of it: images and guidance branches apart, say."""
    return degrees_fit(shape, parallel, AXIS, cfg)
