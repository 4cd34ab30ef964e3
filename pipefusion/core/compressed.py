"""Exchanges of K, V in which residuals go on the wire: displaced all-gathers and a ring (CompactFusion)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.fabric import Work
from pipefusion.core.layout import Job
from pipefusion.core.ledger import Where
from pipefusion.core.residuals import Codec
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.sequence import ring, round_the_ring


class Residuals:
    """One layer's displaced exchange: the base that others have of this rank's K, V, and the bytes that arrive.

    The bases of the others' are their K, V in the buffer [n, 2, b, t, H, d] of the layer.
    """

    def __init__(self, run: Run, how: str):
        self.fabric, self.place = run.fabric, run.fabric.axis("patch")
        size = (2, run.batch, run.inner_heads, run.layout.band_tokens, run.shape.head_dim)
        self.codec = Codec(how, size, run.dtype)
        self.base = run.fabric.zeros("kv", *size, dtype=run.dtype)
        self.arriving = run.fabric.empty("comm", self.place.size, self.codec.nbytes, dtype=torch.uint8)

    def reset(self, mine: Tensor) -> None:
        """The others have got K, V [2, b, t, H, d] as they are."""
        self.base.copy_(mine.transpose(2, 3))

    def send(self, mine: Tensor, at: Where) -> Work | None:
        """Start to gather what everybody's K, V differ from their base by."""
        message = self.codec.encode(mine.transpose(2, 3) - self.base)
        self.base += self.codec.decode(message)
        return self.fabric.all_gather(self.arriving, message, axis="patch", at=at, async_op=True)

    def add_to(self, buffer: Tensor) -> None:
        """Bring the others' K, V up to date with what has arrived."""
        for peer, message in enumerate(self.arriving):
            if peer != self.place.index:
                buffer[peer] += self.codec.decode(message).transpose(2, 3)


def compressed_ring(run: Run, how: str, whole: int) -> AttendFor:
    """Ring attention in which residuals go round, as they are in the first `whole` steps.

    A rank attends to its own K, V and to those of the others as it rebuilds them; it holds the bases of all.
    """
    fabric, place = run.fabric, run.fabric.axis("ring")
    if place.size == 1 or how == "none":
        return ring(run)
    tokens = fabric.axis("ulysses").size * run.most_tokens
    size = (2, run.batch, run.inner_heads, tokens, run.shape.head_dim)
    codec, own = Codec(how, size, run.dtype), place.index
    bases = {layer: fabric.zeros("kv", place.size, *size, dtype=run.dtype) for layer in run.layout.layers}
    room = max(codec.nbytes, prod(size) * run.dtype.itemsize)
    spare = [fabric.empty("comm", room, dtype=torch.uint8) for _ in range(2)]

    def attend_for(job: Job) -> Attend:
        entire = job.step < whole

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            base = bases[layer]

            def rebuilt(origin: int, message: Tensor) -> Tensor:
                if entire:
                    return base[origin].copy_(message)
                return base[origin].add_(codec.decode(message))

            mine = torch.stack([x[:, prefix:].transpose(1, 2) for x in (k, v)])  # [2, b, h, t, d]
            message = mine if entire else codec.encode(mine - base[own])
            rebuilt(own, message)
            places = [memory[: message.nbytes].view(message.dtype).view(message.shape) for memory in spare]
            return round_the_ring(run, job, layer, q, k, v, message, places, prefix, rebuilt)

        return attend

    return attend_for
