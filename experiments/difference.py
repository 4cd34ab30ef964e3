"""How far two tensors are apart. Numbers that are not finite have no distance: asking for one raises."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = torch.finfo(torch.float32).tiny


class NotFinite(ValueError):
    """NaN or infinite values in what was to be compared: names whose they are."""


def require_finite(tensor: Tensor, name: str) -> Tensor:
    """The tensor. Raises NotFinite."""
    if not bool(torch.isfinite(tensor).all()):
        raise NotFinite(f"{name} has NaN or infinite values")
    return tensor


def largest_difference(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest value that is wanted; infinite for another size. Raises NotFinite."""
    if got.shape != want.shape:
        return float("inf")
    want = require_finite(want, "the reference").double()
    got = require_finite(got, "what is compared").to(want.device).double()
    return float((got - want).abs().max() / want.abs().max().clamp_min(SMALLEST))


def norm_of_difference(got: Tensor, want: Tensor, start: int = 1) -> Tensor:
    """||got - want|| / ||want||, for each index of the first `start` dimensions. Raises NotFinite."""
    want = require_finite(want, "the reference").flatten(start)
    got = require_finite(got, "what is compared").flatten(start)
    return (got - want).norm(dim=start) / want.norm(dim=start)
