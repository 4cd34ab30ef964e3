"""What methods share whose devices own a band of token rows and all layers, N = M, and see others' K, V stale.

DistriFusion and naive patch parallelism have full-length buffers, and differ in whether fresh K, V are still exchanged
after the warm-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import Attend, full
from pipefusion.core.checks import equal_bands, within
from pipefusion.core.dit import Conditioning, DiT, Problem, Sampler
from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.ledger import Where
from pipefusion.core.sampler import denoise_band, gather_bands
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import split_rows


def check_bands(shape: DiTShape, devices: int, steps: int, warmup: int) -> Problem | None:
    """Equal bands; W between 0 and S."""
    return equal_bands(shape, devices) or within("method.warmup", warmup, 0, steps, "the steps")


def attend_to_bands(q: Tensor, k: Tensor, v: Tensor, prefix: int, bands: Sequence[Tensor]) -> Tensor:
    """Attention to the own prompt, the first `prefix` tokens of k, v, and to K, V of bands [2, b, t, H, d]."""
    whole_k = torch.cat([k[:, :prefix], *(band[0] for band in bands)], dim=1)  # [b, T+p, H, d]
    whole_v = torch.cat([v[:, :prefix], *(band[1] for band in bands)], dim=1)
    return full(q, whole_k, whole_v)


def displaced_sampler(
    dit: DiT, fabric: Fabric, axis: str, scheduler: Any, warmup: int, *, exchange: bool
) -> Sampler:
    """Attend to the own fresh K, V and everybody else's as the buffer has them.

    In the first W steps the buffer is gathered and waited for. After that, with `exchange`, an asynchronous all-gather
    of the fresh K, V starts behind each attention and must have arrived by the same layer of the next step. An
    MM-DiT's prompt is computed by every device, with what that device sees of the image.
    """
    place = fabric.axis(axis)
    n, shape, steps = place.size, dit.shape, len(scheduler.timesteps)
    rows = split_rows(shape.token_rows, n)[place.index]

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor:
        block = (n, 2, noise.shape[0] * cond.branches, shape.tokens // n, shape.heads, shape.head_dim)
        buffers = [fabric.zeros("kv", *block, dtype=dit.dtype) for _ in range(shape.layers)]
        arriving: dict[int, Work | None] = {}

        def attend_at(step: int) -> Attend:
            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
                buffer, at = buffers[layer], Where(step, layer)
                stale = arriving.pop(layer, None)
                if stale is not None:
                    stale.wait()
                mine = torch.stack([k[:, prefix:], v[:, prefix:]])  # [2, b, t, H, d]
                if step < warmup:
                    fabric.all_gather(buffer, mine, axis=axis, at=at)
                else:
                    buffer[place.index].copy_(mine)
                out = attend_to_bands(q, k, v, prefix, buffer.unbind())
                if exchange and warmup <= step < steps - 1:  # nobody would see what the last step sends
                    arriving[layer] = fabric.all_gather(buffer, mine, axis=axis, at=at, async_op=True)
                return out

            return attend

        band = denoise_band(dit, fabric, scheduler, noise, cond, rows, attend_at, place.ranks[place.index])
        return gather_bands(fabric, band, axis, steps)

    return sampler


def displaced_prediction(
    shape: DiTShape, devices: int, batch: int, images: int, gathers: int
) -> forms.Prediction:
    """`gathers` steps with an all-gather: 2 * (n-1)/n * p * hs * L elements each; KV of all layers everywhere."""
    block = 2 * forms.hidden_bytes(shape, batch) // devices
    sent = gathers * shape.layers * (devices - 1) * block
    kv = forms.kv_bytes(shape, shape.layers, batch)
    return forms.band_prediction(shape, devices, batch, images, sent_bytes=sent, kv=kv)
