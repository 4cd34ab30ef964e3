"""Ring attention: K, V blocks travel point to point round the ring while each device attends to the one it has.

Every device holds all layers and p/n tokens. Partial results are merged by online softmax. An
MM-DiT's prompt is computed by every device. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import Attend, merge, with_logsumexp
from pipefusion.core.checks import equal_bands
from pipefusion.core.dit import Conditioning, DiT, Problem, Sampler
from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.ledger import Where
from pipefusion.core.sampler import denoise_band, gather_bands
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import split_rows


@dataclass
class Config:
    """Nothing to choose."""

    name: str = "ring"
    axis: str = "ring"


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """Token rows are shared out evenly."""
    return equal_bands(shape, devices)


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """All layers on a band of rows; n-1 hops a layer, each under the attention to the block before it."""
    place = fabric.axis(cfg.axis)
    n, shape = place.size, dit.shape
    after, before = (place.index + 1) % n, (place.index - 1) % n
    rows = split_rows(shape.token_rows, n)[place.index]

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor:
        block = (2, noise.shape[0] * cond.branches, shape.tokens // n, shape.heads, shape.head_dim)
        spare = [fabric.empty("comm", *block, dtype=dit.dtype) for _ in range(2)] if n > 1 else []

        def attend_at(step: int) -> Attend:
            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
                at = Where(step, layer)
                current = torch.stack([k[:, prefix:], v[:, prefix:]])  # [2, b, t, H, d]
                parts = []
                for hop in range(n):
                    works: list[Work] = []
                    if hop < n - 1:
                        works.append(fabric.irecv(spare[hop % 2], before, axis=cfg.axis, at=at))
                        works.append(fabric.isend(current, after, axis=cfg.axis, at=at))
                    block_k, block_v = (current[0], current[1]) if hop else (k, v)  # the prompt's once
                    parts.append(with_logsumexp(q, block_k, block_v))
                    if hop:
                        parts = [merge(*parts[0], *parts[1])]
                    for work in works:
                        work.wait()
                    if works:
                        current = spare[hop % 2]
                return parts[0][0].to(q.dtype)

            return attend

        band = denoise_band(dit, fabric, scheduler, noise, cond, rows, attend_at, place.ranks[place.index])
        return gather_bands(fabric, band, cfg.axis, len(scheduler.timesteps))

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """Per step 2 * (n-1)/n * p * hs * L elements (Table 1: 2 O(p hs) L)."""
    block = 2 * forms.hidden_bytes(shape, batch) // devices
    sent = steps * shape.layers * (devices - 1) * block
    comm = 2 * block if devices > 1 else 0
    return forms.band_prediction(shape, devices, batch, images, sent_bytes=sent, comm_bytes=comm)
