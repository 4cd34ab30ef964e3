"""DeepSpeed-Ulysses sequence parallelism: all-to-all turns bands of tokens into groups of heads and back.

Every device holds all layers and p/n tokens; inside self-attention it holds all p tokens of heads/n heads
(`core/sequence.py`). Exact. Per step and device 4/n * (n-1)/n * p * hs * L elements (Table 1: 4/N O(p hs) L).
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.exact import build as build
from baselines.exact import predict as predict
from pipefusion.core.checks import Settings, degrees_fit
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape

AXIS = "ulysses"


@dataclass
class Config(Settings):
    """Nothing of its own to choose."""

    name: str = "ulysses"


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Heads, MLP columns and token rows are shared out evenly, by the axes that share them."""
    return degrees_fit(shape, parallel, AXIS, cfg)
