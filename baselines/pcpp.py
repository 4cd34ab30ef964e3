"""Partially conditioned patch parallelism (PCPP, arXiv 2412.02962): DistriFusion that knows its neighbours only.

N = M: each device owns one band of token rows and all layers. After W synchronous steps self-attention sees the own
fresh K, V and, one step old, those of the rows nearest to the own band, a fraction of each neighbouring one. They go
point to point and hide behind a step. Of more distant bands nothing is seen, sent or held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Annotated

import torch
from torch import Tensor

from baselines.displaced import AXIS as AXIS
from baselines.displaced import check_bands
from pipefusion.core.attention import Attend
from pipefusion.core.cache import cache_rule
from pipefusion.core.checks import Warm, needs_kv
from pipefusion.core.denoise import assemble
from pipefusion.core.displaced import attend_to_bands
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.domain import Domain
from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.grid import Band, rows_in
from pipefusion.core.layout import Job
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.predict import predict as predict_bytes
from pipefusion.core.problem import Problem
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.sequence import gathered, ulysses
from pipefusion.core.shape import DiTShape


@dataclass
class Config(Warm):
    """`fraction` of a neighbouring band's rows that is seen, rounded up."""

    name: str = "pcpp"
    fraction: Annotated[float, Domain(0, 1, above=True)] = 0.5


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Equal bands; W between 0 and S; a fraction."""
    if not 0 < cfg.fraction <= 1:
        return Problem("method.fraction", f"{cfg.fraction} is no part of a band; allowed: above 0, at most 1")
    return check_bands(shape, parallel, steps, cfg) or needs_kv(shape, "method", cfg.name)


def shared_rows(shape: DiTShape, bands: int, cfg: Config) -> int:
    """Token rows of a band that a neighbour sees."""
    return ceil(round(cfg.fraction * (shape.lines // bands), 9))  # 0.07 * 100 is a little above 7


def neighbours(bands: int, index: int) -> list[int]:
    """The bands before and behind, where there are any."""
    return [peer for peer in (index - 1, index + 1) if 0 <= peer < bands]


def attends(shape: DiTShape, parallel: Parallel, cfg: Config, rows: Band) -> range:
    """The band that the rows are of, and the nearest rows of those next to it."""
    reach, size = shared_rows(shape, parallel.patch, cfg), shape.lines // parallel.patch
    start = rows_in(rows)[0] // size * size
    return range(max(start - reach, 0), min(start + size + reach, shape.lines))


def partial(run: Run, shared: int) -> AttendFor:
    """Queries of a band attend to its own fresh K, V and to the nearest `shared` tokens of its neighbours."""
    fabric, place, steps = run.fabric, run.fabric.axis(AXIS), run.steps
    own, peers = place.index, neighbours(place.size, place.index)
    heads = (run.inner_heads, run.shape.head_dim)
    part, band = (2, run.batch, shared, *heads), (2, run.batch, run.layout.band_tokens, *heads)
    stale = {
        layer: {peer: fabric.zeros("kv", *part, dtype=run.dtype) for peer in peers}
        for layer in run.layout.layers
    }
    warms = any(job.sync for job in run.jobs)
    whole = fabric.empty("comm", place.size, *band, dtype=run.dtype) if peers and warms else None
    arriving: dict[int, list[Work]] = {}

    def nearest(band: Tensor, index: int, to: int) -> Tensor:
        """Of band `index` [2, b, t, H, d] the tokens nearest to band `to`."""
        return band[:, :, -shared:] if to > index else band[:, :, :shared]

    def attend_for(job: Job) -> Attend:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            at, seen = job.where(layer), stale[layer]
            for work in arriving.pop(layer, []):
                work.wait()
            mine = torch.stack([k[:, prefix:], v[:, prefix:]])  # [2, b, t, H, d]
            if whole is not None and job.sync:
                fabric.all_gather(whole, mine, axis=AXIS, at=at)
                for peer, kept in seen.items():
                    kept.copy_(nearest(whole[peer], peer, own))
                return attend_to_bands(run, q, k, v, prefix, whole.unbind())
            out = attend_to_bands(
                run, q, k, v, prefix, [kv for _, kv in sorted([*seen.items(), (own, mine)])]
            )
            if job.step < steps - 1:  # nobody would see what the last step sends
                parts = [nearest(mine, own, peer).contiguous() for peer in peers]
                # Nothing in between, so that the host makes one call of all messages.
                works = [fabric.irecv(kept, peer, axis=AXIS, at=at) for peer, kept in seen.items()]
                works += [
                    fabric.isend(part, peer, axis=AXIS, at=at)
                    for peer, part in zip(peers, parts, strict=True)
                ]
                arriving[layer] = works
            return out

        return attend

    return attend_for


def build(dit: DiT, fabric: Fabric, cfg: Config) -> Sampler:
    """All layers on a band of rows, with every layer's K, V of the neighbours' nearest rows."""
    shared = shared_rows(dit.shape, fabric.axis(AXIS).size, cfg) * dit.shape.grid.width

    def attention(run: Run) -> AttendFor:
        return ulysses(run, gathered(run, partial(run, shared)), cfg.qkv)

    return assemble(
        dit,
        fabric,
        attention,
        warmup=cfg.warmup,
        warmup_threshold=cfg.warmup_threshold,
        cache=cache_rule(cfg),
    )


def predict(
    shape: DiTShape, parallel: Parallel, rank: int, steps: int, images: int, branches: int, cfg: Config
) -> Prediction:
    """2 * fraction/n * p * hs * L elements per step to each neighbour, K, V of that size; DistriFusion's warm-up."""
    n = parallel.patch
    found = predict_bytes(
        shape,
        parallel,
        rank,
        steps,
        images,
        branches,
        buffer="displaced",
        warmup=cfg.warmup,
        gathers=cfg.warmup,
        cache=cache_rule(cfg),
        qkv=cfg.qkv,
    )
    peers = len(neighbours(n, parallel.mesh().axis(AXIS, rank).index))
    whole = found.kv_bytes // shape.layers  # K, V of all tokens of one layer
    part = whole * shared_rows(shape, n, cfg) // shape.lines
    sent = shape.layers * max(steps - 1 - cfg.warmup, 0) * peers * part
    return replace(
        found,
        kv_bytes=shape.layers * peers * part,
        comm_bytes=found.comm_bytes + (whole if peers and cfg.warmup else 0),
        sent_bytes=found.sent_bytes + sent,
        recv_bytes=found.recv_bytes + sent,
        axis_bytes=found.axis_bytes | ({AXIS: found.axis_bytes.get(AXIS, 0) + sent} if sent else {}),
    )
