"""Full-length K and V of a rank's own layers, refreshed patch by patch (section 3.2 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipefusion.core.attention import Attend, full
from pipefusion.core.layout import Job
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.sequence import gathered, round_the_ring


class StaleKV:
    """One buffer per layer: [2, batch, T + tokens, heads, head_dim], K then V, starting as zeros.

    It lives for one batch of images. In front of the image tokens there is room for the T = `prefix` of an MM-DiT's
    prompt, so that attention reads one tensor: they are written by each job anew, are no state, and count as buffer.
    """

    def __init__(self, run: Run, tokens: int, prefix: int):
        self.prefix = prefix
        size = (2, run.batch, prefix + tokens, run.inner_heads, run.shape.head_dim)
        layers = run.layout.layers
        self.buffers = {layer: run.fabric.zeros("kv", *size, dtype=run.dtype) for layer in layers}
        prompt = 2 * run.batch * prefix * run.inner_heads * run.shape.head_dim * run.dtype.itemsize
        run.fabric.ledger.move("kv", "buffer", prompt * len(layers))

    def write(self, layer: int, slots: Sequence[slice], k: Tensor, v: Tensor, prefix: int) -> None:
        """Overwrite the K, V of the image tokens at `slots`, in place, and the prompt's, which come first in k, v."""
        for whole, new in zip(self.buffers[layer], (k, v), strict=True):
            if prefix and self.prefix:
                whole[:, : self.prefix].copy_(new[:, :prefix])
            start = prefix
            for slot in slots:
                stop = start + slot.stop - slot.start
                whole[:, self.prefix + slot.start : self.prefix + slot.stop].copy_(new[:, start:stop])
                start = stop

    def read(self, layer: int, prefix: int) -> tuple[Tensor, Tensor]:
        """K and V of all tokens, [batch, prefix + tokens, heads, head_dim] each: fresh where written this step."""
        whole_k, whole_v = self.buffers[layer]
        skipped = self.prefix - prefix  # a block that attends to the image alone, in a model that has others
        return (whole_k[:, skipped:], whole_v[:, skipped:]) if skipped else (whole_k, whole_v)


def stale(run: Run) -> AttendFor:
    """Queries of a patch attend to a buffer of all tokens, in which that patch is fresh and later ones a step old.

    Ring ranks gather the fresh K, V of the patch and hold all tokens each.
    """
    layout = run.layout
    kv = StaleKV(run, layout.band_tokens, run.shape.joint_tokens)

    def attend_for(job: Job) -> Attend:
        slots = layout.slots(job, layout.lanes)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            kv.write(layer, slots, k, v, prefix)
            return full(q, *kv.read(layer, prefix))

        return attend

    return gathered(run, attend_for)


def rotating(run: Run) -> AttendFor:
    """As `stale` with the tokens of the buffer shared by the ring ranks: at every job all of it goes round the ring."""
    layout, fabric = run.layout, run.fabric
    if fabric.axis("ring").size == 1:
        return stale(run)
    lanes = fabric.axis("ulysses").size
    tokens = layout.tokens * lanes
    kv = StaleKV(run, tokens, 0)
    spare = [run.scratch("comm", 2, run.batch, tokens, run.inner_heads, run.shape.head_dim) for _ in range(2)]

    def attend_for(job: Job) -> Attend:
        slots = layout.slots(job, lanes)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            kv.write(layer, slots, k, v, prefix)
            mine = kv.buffers[layer]
            places = [memory.view(*mine.shape) for memory in spare]
            own_k, own_v = mine
            if prefix:
                own_k, own_v = (torch.cat([x[:, :prefix], y], dim=1) for x, y in ((k, own_k), (v, own_v)))
            return round_the_ring(fabric, job.where(layer), q, own_k, own_v, mine, places)

        return attend

    return attend_for
