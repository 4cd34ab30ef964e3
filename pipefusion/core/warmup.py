"""Automatic warm-up: steps are synchronous until the prediction changes little from one step to the next.

Behind each synchronous step t > 0, c(t) = sum |e(t) - e(t-1)| / sum |e(t-1)| of the guided predictions e of all
images; the first step with c(t) under the threshold is the last synchronous one, and W = t + 1. Ranks of the last stage
sum over all that have a part of the predictions and tell the first stage, and each stage the next one, so that all find
the same W.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipefusion.core.change import DECISION, SHARED_BY, SUMS, relative_change
from pipefusion.core.layout import Job
from pipefusion.core.messages import Outbox
from pipefusion.core.run import Run


class AutoWarmup:
    """The jobs of one rank, found out as the predictions of one batch of images change."""

    def __init__(self, run: Run, threshold: float):
        self.run, self.threshold = run, threshold
        self.before: Tensor | None = None
        fabric, (stage, stages) = run.fabric, (run.layout.stage, len(run.layout.stages))
        if run.layout.last:
            self.sums = fabric.empty("comm", 2, dtype=SUMS)
        else:
            self.flag = fabric.empty("comm", 1, dtype=DECISION)
        self.outbox = Outbox(fabric, (stage + 1) % stages) if stages > 1 and stage != stages - 2 else None

    def following(self, job: Job, prediction: Tensor | None) -> list[Job]:
        """The jobs behind a synchronous step: the next such step, or all that are left. Collective.

        The last stage brings its guided prediction [B, C, h, W].
        """
        step, layout, steps = job.step + 1, self.run.layout, self.run.steps
        over = self.is_over(job, prediction) if job.step else False
        if prediction is not None:
            if self.before is None:
                shape = prediction.shape
                self.before = self.run.fabric.empty("buffer", *shape, dtype=prediction.dtype)
            self.before.copy_(prediction)
        return layout.jobs(steps, step)[step:] if over else layout.jobs(steps, step + 1)[step : step + 1]

    def is_over(self, job: Job, prediction: Tensor | None) -> bool:
        """Whether the warm-up ends with this step, which the stages tell each other; never without data."""
        fabric, at, stages = self.run.fabric, job.at, len(self.run.layout.stages)
        if prediction is not None:
            assert self.before is not None
            axes = (*SHARED_BY, "data")
            over = relative_change(fabric, self.sums, prediction, self.before, at, axes) < self.threshold
        else:
            fabric.recv(self.flag, (self.run.layout.stage - 1) % stages, axis="pipe", at=at)
            over = self.flag.device.type != "meta" and bool(self.flag)
        if self.outbox:
            self.outbox.put(torch.full((1,), over, dtype=DECISION, device=fabric.device), at)
        return over

    def drain(self) -> None:
        """Wait for all decisions that were sent."""
        if self.outbox:
            self.outbox.drain()
