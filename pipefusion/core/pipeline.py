"""A pipeline of stages over jobs, with transfers that overlap compute (section 3 of the paper).

A job is one step on one band of token rows; stage d runs job j at micro-step j + d. The receive for the next job is
posted before a job computes, and a send is waited for only when two more results are ready to go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import Attend
from pipefusion.core.dit import Conditioning, DiT, Given, Tokens, run_blocks
from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.jobs import Job
from pipefusion.core.ledger import Where
from pipefusion.core.sampler import BandSchedulers, Finite, branches, guide, timesteps_on
from pipefusion.core.shape import DiTShape
from pipefusion.core.skips import StageSkips


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


class Messages:
    """What comes to one stage: the image tokens of a job, behind those of the prompt where these go along.

    In an MM-DiT the prompt's tokens change from block to block. Exactly, they travel with every job; with
    `first_patch` only with the first of a step, and later jobs of that step start the stage with them again. Where no
    block is left they end.
    """

    def __init__(self, shape: DiTShape, stages: Sequence[range], stage: int, first_patch: bool):
        self.joint_tokens = shape.joint_tokens if forms.takes_text(stages, stage) else 0
        self.first_patch = first_patch
        self.kept: Tensor | None = None

    def with_text(self, job: Job) -> bool:
        """Whether the prompt's tokens go along with a job."""
        return self.joint_tokens > 0 and (not self.first_patch or job.patches.start == 0)

    def tokens(self, job: Job, shape: DiTShape) -> int:
        """Tokens of a job's message."""
        return len(job.rows) * shape.token_cols + (self.joint_tokens if self.with_text(job) else 0)

    def pack(self, job: Job, tokens: Tokens) -> Tensor:
        """Tokens -> message [b, T+t or t, hs]."""
        if not self.with_text(job):
            return tokens.image
        assert tokens.text is not None
        return torch.cat([tokens.text, tokens.image], dim=1)

    def unpack(self, job: Job, message: Tensor, fabric: Fabric) -> Tokens:
        """Message -> tokens."""
        if not self.with_text(job):
            return Tokens(message, self.kept)
        text, image = message.split([self.joint_tokens, message.shape[1] - self.joint_tokens], dim=1)
        if self.first_patch:
            if self.kept is None:
                self.kept = fabric.empty("buffer", *text.shape, dtype=text.dtype)
            text = self.kept.copy_(text)  # the message's own place is received into before the step is over
        return Tokens(image, text)


def run_pipeline(
    dit: DiT,
    fabric: Fabric,
    axis: str,
    stages: Sequence[range],
    scheduler: Any,
    noise: Tensor,
    cond: Conditioning,
    jobs: Sequence[Job],
    bands: Sequence[range],
    attend_for: Callable[[Job], Attend],
    first_patch: bool = False,
) -> Tensor | None:
    """Denoise through all stages; the first returns the latents [B, C, H, W], the others None.

    `attend_for(job)` is what the self-attention sites do in that job. The first stage embeds; the last applies
    guidance and the scheduler patch by patch and sends each new latent back at once: consecutive steps overlap with
    no flush. `first_patch` is the published treatment of an MM-DiT's prompt, see `Messages`.
    """
    place = fabric.axis(axis)
    first, last, alone = place.index == 0, place.index == place.size - 1, place.size == 1
    shape, batch = dit.shape, noise.shape[0] * cond.branches
    text = dit.text(cond)
    positions = {rows: dit.positions(rows) for rows in dict.fromkeys(job.rows for job in jobs)}
    arriving, leaving = (
        Messages(shape, stages, stage, first_patch) for stage in (place.index, place.index + 1)
    )
    skips = StageSkips(fabric, axis, shape, stages, batch, dit.dtype, jobs)

    latents: list[Tensor] = []  # by patch, where they are needed: to embed them and to step them
    if first or last:
        for band in bands:
            part = noise[:, :, shape.band_latent(band)]
            latents.append(fabric.empty("buffer", *part.shape, dtype=torch.float32).copy_(part))
    stepper = BandSchedulers(scheduler, len(bands)) if last else None
    timesteps = timesteps_on(fabric.device, scheduler)
    finite = Finite(len(timesteps), fabric.device)
    outbox = Outbox(fabric, axis, (place.index + 1) % place.size)
    inbox = None
    if not first:
        sizes = [(batch, arriving.tokens(job, shape), shape.hidden) for job in jobs]
        inbox = Inbox(fabric, axis, place.index - 1, sizes, dit.dtype)
        inbox.post(0, jobs[0].at)
    updates: dict[int, Work] = {}  # the latent of a patch on its way from the last stage

    step = -1
    for index, job in enumerate(jobs):
        fabric.begin(job.at)
        skips.begin(job)
        if job.step != step:
            step = job.step
            modulation = dit.modulation(timesteps[step], text, batch)
        if inbox is None:
            for patch in job.patches:
                if patch in updates:
                    updates.pop(patch).wait()
            whole = torch.cat([latents[patch] for patch in job.patches], dim=2)  # [B, C, h, W]
            tokens = dit.embed(branches(whole, cond), job.rows, text)
            if not alone:  # received in place: this step's latent has been read, and causes the next one
                for patch in job.patches:
                    at = Where(step, -1, patch)
                    updates[patch] = fabric.irecv(latents[patch], place.size - 1, axis=axis, at=at)
        else:
            inbox.post(index + 1, jobs[min(index + 1, len(jobs) - 1)].at)
            message = inbox.take()
            if not dit.layers and not last:
                message = message.clone()  # an empty stage must not send from a buffer that is received into
            tokens = arriving.unpack(job, message, fabric)
        tokens = run_blocks(dit, tokens, Given(text, modulation, positions[job.rows]), attend_for(job), skips)
        skips.end()
        if stepper is None:
            outbox.put(leaving.pack(job, tokens), job.at)
            continue
        prediction = guide(dit.unembed(tokens.image, modulation, job.rows), cond)  # [B, C, h, W]
        heights = [len(bands[patch]) * shape.patch_size for patch in job.patches]
        for patch, part in zip(job.patches, prediction.split(heights, dim=2), strict=True):
            latents[patch] = stepper.step(patch, step, part, latents[patch])
            finite.note(step, latents[patch])
            if not alone:
                outbox.put(latents[patch], Where(step, -1, patch))
    outbox.drain()
    skips.drain()
    for work in updates.values():
        work.wait()
    finite.require(place.ranks[place.index])
    return torch.cat(latents, dim=2) if first else None
