"""The loop of what was asked for: stages in one order, in rotation, or without waiting for each other."""

from __future__ import annotations

from torch import Tensor

from experiments.conformance import asynchronous, reference, rotational
from experiments.conformance.request import NONE, Deviation, Request, See
from pipefusion.core.dit import DiT


def denoise(dit: DiT, request: Request, deviation: Deviation = NONE, see: See | None = None) -> Tensor:
    """The latents after each step [S, B, C, H, W], float32 on the view's device."""
    if request.schedule == "asynchronous":
        return asynchronous.denoise(dit, request, deviation, see)
    if request.schedule == "rotational" and not deviation.unturned:
        return rotational.denoise(dit, request, deviation, see)
    return reference.denoise(dit, request, deviation, see)
