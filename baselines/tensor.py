"""Megatron tensor parallelism: attention heads and MLP columns split, one all-reduce behind each attention and MLP.

Every device sees all tokens of all layers (`core/tensor.py`). What cannot be split (AdaLN, embeddings, norms, biases
behind an all-reduce) is held by every device and counted as replicated. A cross-attention is split as well (`cross:
split`) or left whole on every device, as what was published has it (`cross: whole`): more parameters, one all-reduce
less. Exact. Per step and device 2(n-1)/n * p * hs elements for each attention and MLP.
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.exact import build as build
from baselines.exact import predict as predict
from pipefusion.core.checks import Settings, degrees_fit, unknown_choice
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape

AXIS = "tensor"
CROSS = ("split", "whole")


@dataclass
class Config(Settings):
    """`cross`: whether the cross-attention of a block that has one is split too, or whole on every device."""

    name: str = "tensor"
    cross: str = "split"


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Heads, MLP columns and token rows are shared out evenly, by the axes that share them."""
    return unknown_choice("method.cross", cfg.cross, CROSS) or degrees_fit(shape, parallel, AXIS, cfg)
