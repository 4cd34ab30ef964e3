"""Full-length K and V of a rank's own layers, refreshed patch by patch (section 3.2 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from pipefusion.core.attention import Attend, full
from pipefusion.core.layout import Job
from pipefusion.core.linear import summed
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.sequence import gathered, round_the_ring
from pipefusion.core.states import kept


class StaleKV:
    """One buffer per layer: [2, batch, heads, T + tokens, head_dim], K then V, starting as zeros.

    It lives for one batch of images. A head's tokens lie together, since every job reads all of them: with few queries
    a kernel waits for memory. Where a layer of an MM-DiT attends to the prompt as well there is room for its T
    tokens in front of the image's, so that attention reads one tensor: they are written by each job anew, are no state,
    and count as buffer. Without `place` there is none.
    """

    def __init__(self, run: Run, tokens: int, place: bool = True):
        self.prefixes = {layer: place * run.shape.prefix(layer) for layer in run.layout.layers}
        self.buffers = {}
        for layer, prefix in self.prefixes.items():
            size = (2, run.batch, run.inner_heads, prefix + tokens, run.shape.head_dim)
            self.buffers[layer] = run.fabric.zeros("kv", *size, dtype=run.dtype)
            prompt = 2 * run.batch * prefix * run.inner_heads * run.shape.head_dim * run.dtype.itemsize
            run.fabric.ledger.move("kv", "buffer", prompt)

    def write(self, layer: int, slots: Sequence[slice], k: Tensor, v: Tensor, prefix: int) -> None:
        """Overwrite the K, V of the image tokens at `slots`, in place, and the prompt's, which come first in k, v.

        k and v are [batch, tokens, heads, head_dim].
        """
        place = self.prefixes[layer]
        for whole, new in zip(self.buffers[layer].transpose(2, 3), (k, v), strict=True):
            if place:
                whole[:, :place].copy_(new[:, :prefix])
            start = prefix
            for slot in slots:
                stop = start + slot.stop - slot.start
                whole[:, place + slot.start : place + slot.stop].copy_(new[:, start:stop])
                start = stop

    def part(self, entries: slice) -> StaleKV:
        """The buffers of these images and branches alone, as views."""
        part = copy(self)
        part.buffers = {layer: buffer[:, entries] for layer, buffer in self.buffers.items()}
        return part

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """K and V of all tokens, [batch, place + tokens, heads, head_dim] each: fresh where written this step."""
        whole_k, whole_v = self.buffers[layer].transpose(2, 3)
        return whole_k, whole_v


def stale(run: Run) -> AttendFor:
    """Queries of a patch attend to a buffer of all tokens, in which that patch is fresh and later ones a step old.

    Ring ranks gather the fresh K, V of the patch and hold all tokens each. Linear attention keeps sums in their place.
    """
    if run.shape.linear:
        return summed(run, kept)
    layout = run.layout
    kv = StaleKV(run, layout.band_tokens)

    def attend_for(job: Job) -> Attend:
        slots, own = layout.slots(job, layout.lanes), kv if job.at.micro < 0 else kv.part(job.entries)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            own.write(layer, slots, k, v, prefix)
            whole_k, whole_v = own.read(layer)
            return full(q, whole_k, whole_v, run.mask(prefix, whole_k.shape[1], job.entries))

        return attend

    return gathered(run, attend_for)


def rotating(run: Run) -> AttendFor:
    """As `stale` with the tokens of the buffer shared by the ring ranks: at every job all of it goes round the ring."""
    layout, fabric = run.layout, run.fabric
    if fabric.axis("ring").size == 1:
        return stale(run)
    lanes = fabric.axis("ulysses").size
    tokens = layout.tokens * lanes
    kv = StaleKV(run, tokens, place=False)
    spare = [run.scratch("comm", 2, run.batch, run.inner_heads, tokens, run.shape.head_dim) for _ in range(2)]

    def attend_for(job: Job) -> Attend:
        slots, own = layout.slots(job, lanes), kv if job.at.micro < 0 else kv.part(job.entries)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            own.write(layer, slots, k, v, prefix)
            mine = own.buffers[layer].contiguous()
            places = [memory.view(*mine.shape) for memory in spare]
            own_k, own_v = own.read(layer)
            if prefix:
                own_k, own_v = (torch.cat([x[:, :prefix], y], dim=1) for x, y in ((k, own_k), (v, own_v)))
            return round_the_ring(run, job, layer, q, own_k, own_v, mine, places, prefix)

        return attend

    return attend_for
