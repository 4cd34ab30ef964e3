"""Megatron tensor parallelism: attention heads and MLP columns split, one all-reduce behind each attention and MLP.

Every device sees all tokens of all layers (`core/tensor.py`). What cannot be split (AdaLN, embeddings, norms, biases
behind an all-reduce) is held by every device and counted as replicated. Exact. Per step and device 2(n-1)/n * p * hs
elements for each attention and MLP.
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.exact import build as build, predict as predict
from pipefusion.core.checks import degrees_fit
from pipefusion.core.dit import Problem
from pipefusion.core.parallel import Parallel
from pipefusion.core.shape import DiTShape

AXIS = "tensor"


@dataclass
class Config:
    """Nothing to choose."""

    name: str = "tensor"


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Heads, MLP columns and token rows are shared out evenly, by the axes that share them."""
    return degrees_fit(shape, parallel, AXIS)
