"""Naive patch parallelism: after W synchronous steps nothing is exchanged any more. The floor of quality.

Each device keeps refreshing its own K, V and sees everybody else's as they were in the last synchronous step (zeros
when W = 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import Attend, full
from pipefusion.core.checks import equal_bands, within
from pipefusion.core.dit import Conditioning, DiT, DiTShape, Problem, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.ledger import Where
from pipefusion.core.sampler import denoise_band, gather_bands
from pipefusion.core.split import split_rows


@dataclass
class Config:
    """`warmup` W: synchronous steps at the start."""

    name: str = "naive_patch"
    axis: str = "patch"
    warmup: int = 1


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """Equal bands; W between 0 and S."""
    return equal_bands(shape, devices) or within("method.warmup", cfg.warmup, 0, steps, "the steps")


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """All layers on a band of rows, with a full-length K, V buffer that only the warm-up fills."""
    place = fabric.axis(cfg.axis)
    n, shape = place.size, dit.shape
    rows = split_rows(shape.token_rows, n)[place.index]

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor:
        block = (n, 2, noise.shape[0] * cond.branches, shape.tokens // n, shape.heads, shape.head_dim)
        buffers = [fabric.zeros("kv", *block, dtype=dit.dtype) for _ in range(shape.layers)]

        def attend_at(step: int) -> Attend:
            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                buffer, mine = buffers[layer], torch.stack([k, v])  # [n, 2, b, t, H, d], [2, b, t, H, d]
                if step < cfg.warmup:
                    fabric.all_gather(buffer, mine, axis=cfg.axis, at=Where(step, layer))
                else:
                    buffer[place.index].copy_(mine)
                whole = buffer.permute(1, 2, 0, 3, 4, 5).flatten(2, 3)  # [2, b, p, H, d]
                return full(q, whole[0], whole[1])

            return attend

        band = denoise_band(dit, fabric, scheduler, noise, cond, rows, attend_at, place.ranks[place.index])
        return gather_bands(fabric, band, cfg.axis, len(scheduler.timesteps))

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """2 * (n-1)/n * p * hs * L elements in each of the W synchronous steps, nothing after."""
    block = 2 * forms.hidden_bytes(shape, batch) // devices
    sent = cfg.warmup * shape.layers * (devices - 1) * block
    kv = forms.kv_bytes(shape, shape.layers, batch)
    return forms.band_prediction(shape, devices, batch, images, sent_bytes=sent, kv=kv)
