"""Patch parallelism over full-length K, V: every rank has all layers, and a band of token rows on the axis `patch`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from pipefusion.core.attention import Attend, full
from pipefusion.core.compressed import Residuals
from pipefusion.core.fabric import Work
from pipefusion.core.layout import Job
from pipefusion.core.linear import summed
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.sequence import gathered
from pipefusion.core.states import See


def attend_to_bands(
    run: Run, q: Tensor, k: Tensor, v: Tensor, prefix: int, bands: Sequence[Tensor]
) -> Tensor:
    """Attention to the own prompt, the first `prefix` tokens of k, v, and to K, V of bands [2, b, t, H, d]."""
    parts = [torch.stack([k[:, :prefix], v[:, :prefix]]), *bands] if prefix else bands
    whole = torch.cat([part.transpose(2, 3) for part in parts], dim=3)  # [2, b, H, T + p, d]
    whole_k, whole_v = whole.transpose(2, 3)
    return full(q, whole_k, whole_v, run.mask(prefix, whole_k.shape[1]))


def banded(
    run: Run,
    size: tuple[int, ...],
    dtype: torch.dtype,
    *,
    exchange: bool,
    synced: Collection[int] = (),
    residuals: Mapping[int, Residuals] | None = None,
) -> Callable[[Job], See]:
    """States of all bands, a buffer [n, *size] a layer: the own one is fresh, the others are as the buffer has them.

    In synchronous steps, and in `synced` layers always, the buffer is gathered and waited for. After that, with
    `exchange`, an asynchronous all-gather of the fresh states starts behind each use and must have arrived by the same
    layer of the next step (DistriFusion); without it the buffer stays as it is (naive patch). In layers that have
    `residuals` it is these that are gathered asynchronously.
    """
    fabric, place, steps = run.fabric, run.fabric.axis("patch"), run.steps
    n = place.size
    buffers = {layer: fabric.zeros("kv", n, *size, dtype=dtype) for layer in run.layout.layers}
    arriving: dict[int, Work | None] = {}

    def see_for(job: Job) -> See:
        def see(layer: int, own: Tensor, use: Callable[[Tensor], Tensor]) -> Tensor:
            buffer, at, mine = buffers[layer], job.where(layer), own[0]
            residual = residuals.get(layer) if residuals else None
            late = arriving.pop(layer, None)
            if late is not None:
                late.wait()
                if residual:
                    residual.add_to(buffer)
            fresh = job.sync or layer in synced
            if fresh and n > 1:
                fabric.all_gather(buffer, mine, axis="patch", at=at)
                if residual:
                    residual.reset(mine)
            else:
                buffer[place.index].copy_(mine)
            out = use(buffer)
            seen = job.step < steps - 1  # nobody would see what the last step sends
            if exchange and n > 1 and not fresh and seen:
                arriving[layer] = (
                    residual.send(mine, at)
                    if residual
                    else fabric.all_gather(buffer, mine, axis="patch", at=at, async_op=True)
                )
            return out

        return see

    return see_for


def displaced(run: Run, *, exchange: bool, synced: Collection[int] = (), compress: str = "none") -> AttendFor:
    """Queries of a band attend to its own fresh K, V and to everybody else's as `banded` has them.

    An MM-DiT's prompt is computed by every rank, with what that rank sees of the image. With `compress` residuals are
    gathered asynchronously. Linear attention has sums in place of K, V.
    """
    if run.shape.linear:
        return summed(run, partial(banded, exchange=exchange, synced=synced))
    size = (2, run.batch, run.layout.band_tokens, run.inner_heads, run.shape.head_dim)
    compressed = compress != "none" and run.fabric.axis("patch").size > 1
    layers = [layer for layer in run.layout.layers if compressed and layer not in synced]
    residuals = {layer: Residuals(run, compress) for layer in layers}
    see_for = banded(run, size, run.dtype, exchange=exchange, synced=synced, residuals=residuals)

    def attend_for(job: Job) -> Attend:
        see = see_for(job)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            own = torch.stack([k[:, prefix:], v[:, prefix:]])[None]  # [1, 2, b, t, h, d]
            return see(layer, own, lambda bands: attend_to_bands(run, q, k, v, prefix, bands.unbind()))

        return attend

    return gathered(run, attend_for)
