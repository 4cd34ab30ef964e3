"""Displaced patch parallelism (DistriFusion, arXiv 2402.19481) on a DiT: N = M, one patch and all layers a device.

Self-attention sees its own fresh K, V and everybody else's of the step before. The all-gather of the fresh ones is
asynchronous and must have arrived by the same layer of the next step. The first W steps gather in place and wait.
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
from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.ledger import Where
from pipefusion.core.sampler import denoise_band, gather_bands
from pipefusion.core.split import split_rows


@dataclass
class Config:
    """`warmup` W: synchronous steps at the start."""

    name: str = "distrifusion"
    axis: str = "patch"
    warmup: int = 1


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """Equal bands; W between 0 and S."""
    return equal_bands(shape, devices) or within("method.warmup", cfg.warmup, 0, steps, "the steps")


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """All layers on a band of rows, with every layer's full-length K, V on every device."""
    place = fabric.axis(cfg.axis)
    n, shape, steps = place.size, dit.shape, len(scheduler.timesteps)
    rows = split_rows(shape.token_rows, n)[place.index]

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor:
        block = (n, 2, noise.shape[0] * cond.branches, shape.tokens // n, shape.heads, shape.head_dim)
        buffers = [fabric.zeros("kv", *block, dtype=dit.dtype) for _ in range(shape.layers)]
        arriving: dict[int, Work | None] = {}

        def attend_at(step: int) -> Attend:
            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                buffer, at = buffers[layer], Where(step, layer)
                stale = arriving.pop(layer, None)
                if stale is not None:
                    stale.wait()
                mine = torch.stack([k, v])  # [2, b, t, H, d]
                if step < cfg.warmup:
                    fabric.all_gather(buffer, mine, axis=cfg.axis, at=at)
                else:
                    buffer[place.index].copy_(mine)
                whole = buffer.permute(1, 2, 0, 3, 4, 5).flatten(2, 3)  # [2, b, p, H, d], a copy
                out = full(q, whole[0], whole[1])
                if cfg.warmup <= step < steps - 1:  # nobody would see what the last step sends
                    arriving[layer] = fabric.all_gather(buffer, mine, axis=cfg.axis, at=at, async_op=True)
                return out

            return attend

        band = denoise_band(dit, fabric, scheduler, noise, cond, rows, attend_at, place.ranks[place.index])
        return gather_bands(fabric, band, cfg.axis, steps)

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """Per gathering step 2 * (n-1)/n * p * hs * L elements (Table 1: 2 O(p hs) L); KV of all layers everywhere."""
    gathers = steps if cfg.warmup == steps else steps - 1
    block = 2 * forms.hidden_bytes(shape, batch) // devices
    sent = gathers * shape.layers * (devices - 1) * block
    kv = forms.kv_bytes(shape, shape.layers, batch)
    return forms.band_prediction(shape, devices, batch, images, sent_bytes=sent, kv=kv)
