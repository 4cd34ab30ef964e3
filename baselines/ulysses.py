"""DeepSpeed-Ulysses sequence parallelism: all-to-all turns bands of tokens into groups of heads and back.

Every device holds all layers and p/n tokens; inside self-attention it holds all p tokens of heads/n heads. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import Attend, full
from pipefusion.core.checks import divides, equal_bands
from pipefusion.core.dit import Conditioning, DiT, Problem, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.ledger import Where
from pipefusion.core.sampler import denoise_band, gather_bands
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import split_rows


@dataclass
class Config:
    """Nothing to choose."""

    name: str = "ulysses"
    axis: str = "ulysses"


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """Heads and token rows are shared out evenly."""
    return divides(devices, shape.heads, "attention heads") or equal_bands(shape, devices)


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """All layers on a band of rows; four all-to-alls a layer (Q, K, V in one call, then the output)."""
    place = fabric.axis(cfg.axis)
    n, shape = place.size, dit.shape
    rows = split_rows(shape.token_rows, n)[place.index]

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor:
        b, t, h, d = noise.shape[0] * cond.branches, shape.tokens // n, shape.heads // n, shape.head_dim
        qkv = fabric.empty("comm", n, 3, b, t, h, d, dtype=dit.dtype)
        back = fabric.empty("comm", n, b, t, h, d, dtype=dit.dtype)
        prompt = fabric.empty("comm", n, b, shape.joint_tokens, h, d, dtype=dit.dtype)

        def attend_at(step: int) -> Attend:
            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
                at = Where(step, layer)
                joined = torch.stack([q, k, v])  # [3, b, T+t, H, d]
                mine = joined[:, :, prefix:].unflatten(3, (n, h)).movedim(3, 0)  # [n, 3, b, t, h, d]
                fabric.all_to_all(qkv, mine.contiguous(), axis=cfg.axis, at=at)
                whole = qkv.permute(1, 2, 0, 3, 4, 5).flatten(2, 3)  # [3, b, p, h, d]
                if prefix:
                    own = joined[:, :, :prefix, place.index * h : (place.index + 1) * h]
                    whole = torch.cat([own, whole], dim=2)  # [3, b, T+p, h, d]
                out = full(whole[0], whole[1], whole[2])  # [b, T+p, h, d]
                bands = out[:, prefix:].unflatten(1, (n, t)).movedim(1, 0).contiguous()  # [n, b, t, h, d]
                fabric.all_to_all(back, bands, axis=cfg.axis, at=at)
                image = back.permute(1, 2, 0, 3, 4).flatten(2, 3)  # [b, t, H, d]
                if not prefix:
                    return image
                fabric.all_gather(prompt, out[:, :prefix].contiguous(), axis=cfg.axis, at=at)
                return torch.cat([prompt.permute(1, 2, 0, 3, 4).flatten(2, 3), image], dim=1)

            return attend

        band = denoise_band(dit, fabric, scheduler, noise, cond, rows, attend_at, place.ranks[place.index])
        return gather_bands(fabric, band, cfg.axis, len(scheduler.timesteps))

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """Per step 4/n * (n-1)/n * p * hs * L elements (Table 1: 4/N O(p hs) L), (n-1)/n * T * hs * L for MM-DiTs."""
    own, text = forms.hidden_bytes(shape, batch) // devices, forms.text_bytes(shape, batch)
    joint = sum(shape.prefix(layer) > 0 for layer in range(shape.layers))
    sent = steps * (shape.layers * 4 * own + joint * text) * (devices - 1) // devices
    return forms.band_prediction(shape, devices, batch, images, sent_bytes=sent, comm_bytes=4 * own + text)
