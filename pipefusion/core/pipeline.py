"""A pipeline of stages over jobs, with transfers that overlap compute (section 3 of the paper).

A job is one step on one band of token rows; stage d runs job j at micro-step j + d. The receive for the next job is
posted before a job computes, and a send is waited for only when two more results are ready to go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.dit import Conditioning, DiT
from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.ledger import Where
from pipefusion.core.sampler import BandSchedulers, branches, guide, require_finite


@dataclass(frozen=True)
class Job:
    """Step `step` on `patches` (all of them in a synchronous step), which are the token rows `rows`."""

    step: int
    patches: range
    rows: range

    @property
    def at(self) -> Where:
        """Its place in the ledger; patch -1 for the whole image."""
        return Where(self.step, -1, self.patches.start if len(self.patches) == 1 else -1)


def make_jobs(steps: int, warmup: int, bands: Sequence[range]) -> list[Job]:
    """W synchronous steps on the whole image, then S - W steps patch by patch: the job order of every stage."""
    whole = range(bands[0].start, bands[-1].stop)
    jobs = [Job(step, range(len(bands)), whole) for step in range(warmup)]
    for step in range(warmup, steps):
        jobs += [Job(step, range(m, m + 1), band) for m, band in enumerate(bands)]
    return jobs


class Inbox:
    """Hidden states from the previous stage: one message a job, received into two alternating buffers."""

    def __init__(
        self, fabric: Fabric, axis: str, source: int, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype
    ):
        self.fabric, self.axis, self.source, self.shapes = fabric, axis, source, shapes
        largest = max(torch.Size(shape).numel() for shape in shapes)
        self.buffers = [fabric.empty("comm", largest, dtype=dtype) for _ in range(2)]
        self.posted: deque[tuple[Tensor, Work]] = deque()

    def post(self, index: int, at: Where) -> None:
        """Start receiving the input of job number `index`; nothing when there is no such job."""
        if index < len(self.shapes):
            shape = self.shapes[index]
            out = self.buffers[index % 2][: torch.Size(shape).numel()].view(shape)
            self.posted.append((out, self.fabric.irecv(out, self.source, axis=self.axis, at=at)))

    def take(self) -> Tensor:
        """Wait for the oldest message that was posted. It stays valid until the next but one is posted."""
        out, work = self.posted.popleft()
        work.wait()
        return out


class Outbox:
    """Sends under way: at most two, so that one drains while the next result is made."""

    def __init__(self, fabric: Fabric, axis: str, to: int):
        self.fabric, self.axis, self.to = fabric, axis, to
        self.pending: deque[Work] = deque()

    def put(self, tensor: Tensor, at: Where) -> None:
        """Send a tensor that nobody writes to any more."""
        if len(self.pending) == 2:
            self.pending.popleft().wait()
        self.pending.append(self.fabric.isend(tensor.contiguous(), self.to, axis=self.axis, at=at))

    def drain(self) -> None:
        """Wait for everything sent."""
        while self.pending:
            self.pending.popleft().wait()


def run_pipeline(
    dit: DiT,
    fabric: Fabric,
    axis: str,
    scheduler: Any,
    noise: Tensor,
    cond: Conditioning,
    jobs: Sequence[Job],
    bands: Sequence[range],
    attend_for: Callable[[Job], Attend],
) -> Tensor | None:
    """Run this rank's stage over all jobs; the final latents on the first stage, None on the others.

    The last stage applies guidance and the scheduler to each patch and sends the new latent of that patch to the first
    stage, which starts the next step on it at once: consecutive steps overlap with no flush.
    """
    place = fabric.axis(axis)
    first, last, alone = place.index == 0, place.index == place.size - 1, place.size == 1
    shape, batch = dit.shape, noise.shape[0] * cond.branches
    text = dit.text(cond)

    latents: list[Tensor] = []  # by patch, where they are needed: to embed them and to step them
    if first or last:
        for band in bands:
            part = noise[:, :, shape.band_latent(band)]
            latents.append(fabric.empty("buffer", *part.shape, dtype=torch.float32).copy_(part))
    stepper = BandSchedulers(scheduler, len(bands)) if last else None
    outbox = Outbox(fabric, axis, (place.index + 1) % place.size)
    inbox = None
    if not first:
        shapes = [(batch, len(job.rows) * shape.token_cols, shape.hidden) for job in jobs]
        inbox = Inbox(fabric, axis, place.index - 1, shapes, dit.dtype)
        inbox.post(0, jobs[0].at)
    updates: dict[int, Work] = {}  # the latent of a patch on its way from the last stage

    step = -1
    for index, job in enumerate(jobs):
        fabric.begin(job.at)
        if job.step != step:
            step = job.step
            modulation = dit.modulation(scheduler.timesteps[step], batch)
        if inbox is None:
            for patch in job.patches:
                if patch in updates:
                    updates.pop(patch).wait()
            whole = torch.cat([latents[patch] for patch in job.patches], dim=2)  # [B, C, h, W]
            hidden = dit.embed(branches(whole, cond), job.rows)  # [b, t, hs]
            if not alone:  # received in place: this step's latent has been read, and causes the next one
                for patch in job.patches:
                    at = Where(step, -1, patch)
                    updates[patch] = fabric.irecv(latents[patch], place.size - 1, axis=axis, at=at)
        else:
            inbox.post(index + 1, jobs[min(index + 1, len(jobs) - 1)].at)
            hidden = inbox.take()
            if not dit.layers and not last:
                hidden = hidden.clone()  # an empty stage must not send from a buffer that is received into
        attend = attend_for(job)
        for layer in dit.layers:
            hidden = dit.block(layer, hidden, modulation, text, attend)
        if stepper is None:
            outbox.put(hidden, job.at)
            continue
        prediction = guide(dit.unembed(hidden, modulation, job.rows), cond)  # [B, C, h, W]
        heights = [len(bands[patch]) * shape.patch_size for patch in job.patches]
        for patch, part in zip(job.patches, prediction.split(heights, dim=2), strict=True):
            latents[patch] = stepper.step(patch, step, part, latents[patch])
            require_finite(latents[patch], place.ranks[place.index], step)
            if not alone:
                outbox.put(latents[patch], Where(step, -1, patch))
    outbox.drain()
    for work in updates.values():
        work.wait()
    return torch.cat(latents, dim=2) if first else None
