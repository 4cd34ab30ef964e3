"""Patch parallelism over full-length K, V: every rank has all layers, and a band of token rows on the axis `patch`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from pipefusion.core.attention import Attend, full
from pipefusion.core.compressed import Residuals
from pipefusion.core.fabric import Work
from pipefusion.core.layout import Job
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.sequence import gathered


def attend_to_bands(
    run: Run, q: Tensor, k: Tensor, v: Tensor, prefix: int, bands: Sequence[Tensor]
) -> Tensor:
    """Attention to the own prompt, the first `prefix` tokens of k, v, and to K, V of bands [2, b, t, H, d]."""
    parts = [torch.stack([k[:, :prefix], v[:, :prefix]]), *bands] if prefix else bands
    whole = torch.cat([part.transpose(2, 3) for part in parts], dim=3)  # [2, b, H, T + p, d]
    whole_k, whole_v = whole.transpose(2, 3)
    return full(q, whole_k, whole_v, run.mask(prefix, whole_k.shape[1]))


def displaced(run: Run, *, exchange: bool, synced: Collection[int] = (), compress: str = "none") -> AttendFor:
    """Queries of a band attend to its own fresh K, V and to everybody else's as the buffer has them.

    In synchronous steps, and in `synced` layers always, the buffer is gathered and waited for. After that, with
    `exchange`, an asynchronous all-gather of the fresh K, V starts behind each attention and must have arrived by the
    same layer of the next step (DistriFusion); without it the buffer stays as it is (naive patch). An MM-DiT's prompt
    is computed by every rank, with what that rank sees of the image. With `compress` it is residuals that are gathered
    asynchronously.
    """
    fabric, place, steps = run.fabric, run.fabric.axis("patch"), run.steps
    n = place.size
    block = (n, 2, run.batch, run.layout.band_tokens, run.inner_heads, run.shape.head_dim)
    buffers = {layer: fabric.zeros("kv", *block, dtype=run.dtype) for layer in run.layout.layers}
    displaced_layers = [layer for layer in buffers if n > 1 and compress != "none" and layer not in synced]
    residuals = {layer: Residuals(run, compress) for layer in displaced_layers}
    arriving: dict[int, Work | None] = {}

    def attend_for(job: Job) -> Attend:
        step = job.step

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            buffer, at, residual = buffers[layer], job.where(layer), residuals.get(layer)
            late = arriving.pop(layer, None)
            if late is not None:
                late.wait()
                if residual:
                    residual.add_to(buffer)
            mine = torch.stack([k[:, prefix:], v[:, prefix:]])  # [2, b, t, h, d]
            fresh = job.sync or layer in synced
            if fresh and n > 1:
                fabric.all_gather(buffer, mine, axis="patch", at=at)
                if residual:
                    residual.reset(mine)
            else:
                buffer[place.index].copy_(mine)
            out = attend_to_bands(run, q, k, v, prefix, buffer.unbind())
            seen = step < steps - 1  # nobody would see what the last step sends
            if exchange and n > 1 and not fresh and seen:
                arriving[layer] = (
                    residual.send(mine, at)
                    if residual
                    else fabric.all_gather(buffer, mine, axis="patch", at=at, async_op=True)
                )
            return out

        return attend

    return gathered(run, attend_for)
