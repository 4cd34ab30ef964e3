"""Rounds of steps (ParaStep, arXiv 2505.14741): N ranks with all layers compute N consecutive steps at once.

After the W synchronous steps, which every rank computes, rank r of the axis `step` computes the r-th step of each
round, on a latent that it has advanced itself with the last prediction it made (reuse, then predict). Rank 0 advances
with the predictions of the steps themselves, as they come from the others, and broadcasts its latent at a round's end.
Every rank steps a scheduler of its own in every step: in rank 0's history there is nothing else than these predictions.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from pipefusion.core.fabric import Work
from pipefusion.core.layout import Job
from pipefusion.core.ledger import Where
from pipefusion.core.mesh import Axis
from pipefusion.core.run import Run


def own_jobs(jobs: list[Job], warmup: int, place: Axis) -> list[Job]:
    """Of the jobs of all steps those of a rank: the W first, then one a round. Each drives the latent to the next."""
    if place.size == 1:
        return jobs
    own = [job for job in jobs if job.step < warmup or (job.step - warmup) % place.size == place.index]
    starts = [job.step for job in own] + [jobs[-1].driven.stop]
    return [replace(job, drives=after - job.step) for job, after in zip(own, starts[1:], strict=True)]


class Rounds:
    """What the ranks of a round exchange, seen from one of them: nothing where it is alone on the axis `step`.

    `noise` [B, C, H, W] is of this rank's images. Predictions [B, C, h, W] are of its share of them, and go to the rank
    of step 0 that has the same share.
    """

    def __init__(self, run: Run, warmup: int, noise: Tensor):
        self.fabric, self.place = run.fabric, run.fabric.axis("step")
        self.warmup, self.steps = warmup, run.steps
        self.shared, self.leads = self.place.size > 1, self.place.index == 0
        self.arriving: dict[int, tuple[Tensor, Work]] = {}
        if self.shared and self.leads:
            share = run.layout.grid.take_latent(noise, run.layout.shares[0]).shape
            self.room = run.fabric.empty("comm", self.place.size - 1, *share, dtype=run.dtype)

    def begin(self, job: Job) -> None:
        """On rank 0: start to receive what the others will predict in the round that this job opens."""
        if self.shared and self.leads and job.step >= self.warmup:
            for other, step in enumerate(job.driven[1:]):
                work = self.fabric.irecv(self.room[other], other + 1, axis="step", at=Where(step))
                self.arriving[step] = self.room[other], work

    def send(self, job: Job, prediction: Tensor) -> None:
        """Send rank 0 the prediction of a job, unless that rank has made it too."""
        if not self.leads and job.step >= self.warmup:
            self.fabric.send(prediction.contiguous(), 0, axis="step", at=job.at)

    def newest(self, step: int, prediction: Tensor) -> Tensor:
        """What a step is taken with: on rank 0 that step's prediction, whoever made it; elsewhere the last one made."""
        if step not in self.arriving:
            return prediction
        out, work = self.arriving.pop(step)
        work.wait()
        return out.clone()  # a scheduler may keep it, and the next one is received there

    def agree(self, step: int, latent: Tensor) -> Tensor:
        """Rank 0's latent [B, C, h, W] on all ranks where this step ends a round, and another one follows."""
        late, last = step - self.warmup, self.place.size - 1
        if self.shared and late >= 0 and late % self.place.size == last and step + 1 < self.steps:
            latent = latent.contiguous()
            self.fabric.broadcast(latent, 0, axis="step", at=Where(step))
        return latent
