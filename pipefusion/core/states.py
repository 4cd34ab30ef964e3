"""What a site sees of other patches where all it needs of one has a size of its own, however many tokens that has.

A *state* [b, ...] is the sums of a patch for linear attention, or the rows at its edges for a convolution. Here is
which of them are fresh: the counterpart of `kv.py` and `displaced.py`, which keep the K and V of every token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipefusion.core.layout import Job
from pipefusion.core.run import Run

See = Callable[[int, Tensor, Callable[[Tensor], Tensor]], Tensor]
"""see(layer, own, use): what `use` makes of all patches' states [patches, b, ...]; `own` are those of the job."""
States = Callable[[Run, tuple[int, ...], torch.dtype], Callable[[Job], See]]
"""states(run, size, dtype): makes the buffers for states of this size, and returns what a job sees of them."""


def fresh(run: Run, size: tuple[int, ...], dtype: torch.dtype) -> Callable[[Job], See]:
    """A job of the whole image: its own states are all there are."""

    def see(layer: int, own: Tensor, use: Callable[[Tensor], Tensor]) -> Tensor:
        return use(own)

    return lambda job: see


def kept(run: Run, size: tuple[int, ...], dtype: torch.dtype) -> Callable[[Job], See]:
    """A buffer [M, *size] a layer, in which a job overwrites the states of its patches: those behind are a step old."""
    count = len(run.layout.patches)
    buffers = {layer: run.fabric.zeros("kv", count, *size, dtype=dtype) for layer in run.layout.layers}

    def see_for(job: Job) -> See:
        def see(layer: int, own: Tensor, use: Callable[[Tensor], Tensor]) -> Tensor:
            states = buffers[layer][:, job.entries]
            states[job.patches.start : job.patches.stop].copy_(own)
            return use(states)

        return see

    return see_for
