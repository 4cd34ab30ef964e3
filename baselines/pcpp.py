"""Partially conditioned patch parallelism (PCPP, arXiv 2412.02962): DistriFusion that knows its neighbours only.

N = M: each device owns one band of token rows and all layers. After W synchronous steps self-attention sees the own
fresh K, V and, one step old, those of the rows nearest to the own band, a fraction of each neighbouring one. They go
point to point and hide behind a step. Of more distant bands nothing is seen, sent or held.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from baselines.displaced import attend_to_bands, check_bands
from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import Attend
from pipefusion.core.dit import Conditioning, DiT, Problem, Sampler
from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.ledger import Where
from pipefusion.core.sampler import denoise_band, gather_bands
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import split_rows


@dataclass
class Config:
    """`warmup` W: synchronous steps at the start. `fraction` of a neighbouring band's rows that is seen, rounded up."""

    name: str = "pcpp"
    axis: str = "patch"
    warmup: int = 1
    fraction: float = 0.5


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """Equal bands; W between 0 and S; a fraction."""
    if not 0 < cfg.fraction <= 1:
        return Problem("method.fraction", f"{cfg.fraction} is no part of a band; allowed: above 0, at most 1")
    return check_bands(shape, devices, steps, cfg.warmup)


def shared_rows(shape: DiTShape, devices: int, cfg: Config) -> int:
    """Token rows of a band that a neighbour sees."""
    return ceil(round(cfg.fraction * (shape.token_rows // devices), 9))  # 0.07 * 100 is a little above 7


def neighbours(devices: int, index: int) -> list[int]:
    """The bands before and behind, where there are any."""
    return [peer for peer in (index - 1, index + 1) if 0 <= peer < devices]


def attends(shape: DiTShape, devices: int, cfg: Config, rows: range) -> range:
    """The own band, and the nearest rows of those next to it."""
    reach = shared_rows(shape, devices, cfg)
    return range(max(rows.start - reach, 0), min(rows.stop + reach, shape.token_rows))


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """All layers on a band of rows, with every layer's K, V of the neighbours' nearest rows."""
    place, shape, steps = fabric.axis(cfg.axis), dit.shape, len(scheduler.timesteps)
    n, own = place.size, place.index
    rows, peers = split_rows(shape.token_rows, n)[own], neighbours(n, own)
    shared = shared_rows(shape, n, cfg) * shape.token_cols

    def nearest(band: Tensor, index: int, to: int) -> Tensor:
        """Of band `index` [2, b, t, H, d] the tokens nearest to band `to`."""
        return band[:, :, -shared:] if to > index else band[:, :, :shared]

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor:
        batch, heads = noise.shape[0] * cond.branches, (shape.heads, shape.head_dim)
        part, band = (2, batch, shared, *heads), (2, batch, shape.tokens // n, *heads)
        stale = [
            {peer: fabric.zeros("kv", *part, dtype=dit.dtype) for peer in peers} for _ in range(shape.layers)
        ]
        whole = fabric.empty("comm", n, *band, dtype=dit.dtype) if peers and cfg.warmup else None
        arriving: dict[int, list[Work]] = {}

        def attend_at(step: int) -> Attend:
            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
                at, seen = Where(step, layer), stale[layer]
                for work in arriving.pop(layer, []):
                    work.wait()
                mine = torch.stack([k[:, prefix:], v[:, prefix:]])  # [2, b, t, H, d]
                if whole is not None and step < cfg.warmup:
                    fabric.all_gather(whole, mine, axis=cfg.axis, at=at)
                    for peer, kept in seen.items():
                        kept.copy_(nearest(whole[peer], peer, own))
                    return attend_to_bands(q, k, v, prefix, whole.unbind())
                out = attend_to_bands(q, k, v, prefix, [kv for _, kv in sorted([*seen.items(), (own, mine)])])
                if step < steps - 1:  # nobody would see what the last step sends
                    works = [fabric.irecv(kept, peer, axis=cfg.axis, at=at) for peer, kept in seen.items()]
                    for peer in peers:
                        edge = nearest(mine, own, peer).contiguous()
                        works.append(fabric.isend(edge, peer, axis=cfg.axis, at=at))
                    arriving[layer] = works
                return out

            return attend

        latent = denoise_band(dit, fabric, scheduler, noise, cond, rows, attend_at, place.ranks[own])
        return gather_bands(fabric, latent, cfg.axis, steps)

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """2 * fraction/n * p * hs * L elements a step to each neighbour, and K, V of that size; DistriFusion's warm-up."""
    peers, hidden = len(neighbours(devices, rank)), forms.hidden_bytes(shape, batch)
    part = 2 * hidden * shared_rows(shape, devices, cfg) // shape.token_rows
    exchanges = max(steps - 1 - cfg.warmup, 0)
    gathered = 2 * hidden * (devices - 1) // devices
    sent = shape.layers * (cfg.warmup * gathered + exchanges * peers * part)
    kv, comm = shape.layers * peers * part, 2 * hidden if peers and cfg.warmup else 0
    return forms.band_prediction(shape, devices, batch, images, sent_bytes=sent, kv=kv, comm_bytes=comm)
