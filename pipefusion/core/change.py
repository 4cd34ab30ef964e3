"""How much a signal has changed since it was noted, over all ranks that share its tokens; whether that is little."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from pipefusion.core.fabric import Fabric
from pipefusion.core.layout import Job
from pipefusion.core.ledger import Where
from pipefusion.core.run import Run

SHARED_BY = ("tensor", "ulysses", "ring", "patch", "cfg")
"""Axes whose ranks work on the same images at the same stage, innermost first."""
SUMS, DECISION = torch.float64, torch.uint8
"""What a decision is made of, and what is passed on of it."""


def relative_change(
    fabric: Fabric, sums: Tensor, new: Tensor, old: Tensor, at: Where, axes: Sequence[str]
) -> float:
    """sum |new - old| / sum |old| over these axes, through two `sums`; infinite from zero, and without data."""
    sums.copy_(torch.stack([x.abs().sum(dtype=SUMS) for x in (new - old, old)]))
    for axis in axes:
        if fabric.axis(axis).size > 1:
            fabric.all_reduce(sums, axis=axis, at=at)
    if fabric.device.type == "meta":
        return float("inf")
    difference, whole = sums.tolist()
    return difference / whole if whole else float("inf")


class Change:
    """The signal [b, t, hs] of this rank's tokens as it was noted, and for each patch how much it has changed.

    The relative change of a job is sum |new - noted| / sum |noted| over its images, guidance branches and tokens. With
    a `polynomial` (coefficients from the highest power down) its values are added up from step to step.
    """

    def __init__(self, run: Run, threshold: float, polynomial: Sequence[float] | None = None):
        self.fabric, self.threshold, self.polynomial = run.fabric, threshold, polynomial
        size = (run.batch, run.layout.tokens, run.shape.hidden)
        self.noted = run.fabric.empty("buffer", *size, dtype=run.dtype)
        self.sums = run.fabric.empty("comm", 2, dtype=SUMS)
        self.grown = [0.0] * len(run.layout.patches)

    def is_small(self, job: Job, signal: Tensor, known: bool, given: bool | None = None) -> bool:
        """Whether the signal of a job has changed by less than the threshold; never where none is `known`.

        It is noted if not, and if changes are added up in any case. Collective; the same on all ranks. Without values
        the answer is `given`.
        """
        noted, small = self.noted[:, job.own], False
        if known:
            change = relative_change(self.fabric, self.sums, signal, noted, job.at, SHARED_BY)
            for patch in job.patches:
                self.grown[patch] = self.added_up(self.grown[patch], change)
            small = (
                all(self.grown[patch] < self.threshold for patch in job.patches) if given is None else given
            )
        if not small:
            for patch in job.patches:
                self.grown[patch] = 0.0
        if self.polynomial or not small:
            noted.copy_(signal)
        return small

    def added_up(self, before: float, change: float) -> float:
        """A change with those before it, where these count."""
        if self.polynomial is None:
            return change
        first, *others = self.polynomial
        return before + reduce(lambda value, coefficient: value * change + coefficient, others, first)
