"""Ring attention: K, V blocks travel point to point round the ring while each device attends to the one it has.

Every device holds all layers and p/n tokens; partial results are merged by online softmax (`core/sequence.py`). The
prompt of an MM-DiT is computed by every device. Exact. Per step and device 2 * (n-1)/n * p * hs * L elements (Table 1:
2 O(p hs) L).
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.exact import build as build
from baselines.exact import predict as predict
from pipefusion.core.checks import Settings, degrees_fit
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape

AXIS = "ring"


@dataclass
class Config(Settings):
    """Nothing of its own to choose."""

    name: str = "ring"


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Heads, MLP columns and token rows are shared out evenly, by the axes that share them."""
    return degrees_fit(shape, parallel, AXIS, cfg.heads)
