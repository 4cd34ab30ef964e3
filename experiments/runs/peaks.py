"""High-water marks of tensor bytes: of one rank's program run alone, and of all ranks from sizes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from experiments.config import RunConfig
from experiments.methods import METHODS, Method, parallel_degrees, with_warmup
from experiments.models.model import Model
from experiments.models.scheduler import build_scheduler
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import DiT
from pipefusion.core.memory import sampling_peak
from pipefusion.core.silent import SilentFabric
from pipefusion.sim.plan import plan_ranks


def peak_bytes(
    model: Model,
    cfg: RunConfig,
    rank: int,
    noise: Tensor,
    cond: Conditioning,
    device: torch.device,
    loaded: DiT,
) -> int:
    """High-water mark of the tensor bytes of this rank's program, run alone on `device` with tensors of `loaded`.

    Alone nobody finds out W: it is 1 where it would be.
    """
    cfg = replace(cfg, method=with_warmup(cfg.method, 1))
    dit = model.view()
    fabric = SilentFabric(parallel_degrees(cfg).mesh(), rank, device)
    sampler = METHODS[cfg.method.name].build(dit, fabric, cfg.method)
    dit.adopt(loaded)  # the tensors that are held already: a second copy might not fit
    return sampling_peak(sampler, dit.model, peak_scheduler(model, cfg), noise.to(device), cond.to(device))


def predicted_peaks(model: Model, cfg: RunConfig, noise: Tensor, cond: Conditioning) -> list[int]:
    """What `peak_bytes` will be on every rank, of sizes alone."""
    cfg = replace(cfg, method=with_warmup(cfg.method, 1))
    method: Method = METHODS[cfg.method.name]
    ranks = plan_ranks(
        lambda dit, fabric: method.build(dit, fabric, cfg.method),
        model.view(),
        parallel_degrees(cfg).mesh(),
        peak_scheduler(model, cfg),
        noise,
        cond,
    )
    return [rank.meter.peak_bytes for rank in ranks]


def peak_scheduler(model: Model, cfg: RunConfig) -> Any:
    """The scheduler of a run that reaches the peak.

    Three steps or rounds of them after the warm-up are enough: from then on each allocates what the one before it did.
    """
    enough = getattr(cfg.method, "warmup", 0) + 3 * parallel_degrees(cfg).step
    return build_scheduler(model, cfg.scheduler, min(cfg.steps, enough))
