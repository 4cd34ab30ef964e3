"""The denoising loop of every method: receive a job, compute it, pass it on (section 3 of the paper).

A job is one step on some patches; stage d of N runs job j at micro-step j + d. A method without a pipeline is one
stage. The receive for the next job is posted before a job computes, and a send is waited for only when two more
results are ready to go. Where a job reads what was made in an earlier step, stages do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.cache import Rule, StepCache
from pipefusion.core.checks import AUTO
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.convolution import Convolve, convolution
from pipefusion.core.dit import DiT, Given, Sampler, Tokens, for_expert, run_blocks
from pipefusion.core.fabric import Fabric
from pipefusion.core.forecast import Forecast
from pipefusion.core.guidance import Guidance
from pipefusion.core.latents import Latents
from pipefusion.core.layout import Job, make_layout
from pipefusion.core.ledger import Where
from pipefusion.core.messages import Inbox, Messages, Outbox
from pipefusion.core.rounds import Rounds, own_jobs
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.sampler import Finite, PatchSchedulers, experts_by_step, timesteps_on
from pipefusion.core.skips import StageSkips
from pipefusion.core.split import Split
from pipefusion.core.stage_residuals import StageResiduals
from pipefusion.core.states import States, fresh
from pipefusion.core.tensor import shard
from pipefusion.core.warmup import AutoWarmup


def assemble(
    dit: DiT,
    fabric: Fabric,
    attention: Callable[[Run], AttendFor],
    *,
    states: States = fresh,
    patches: int = 1,
    split: Split = "even",
    warmup: int | Literal["auto"] | None = None,
    warmup_threshold: float = 0.0,
    stride: int | None = None,
    time_shift: bool = False,
    forecast: int | None = None,
    first_patch: bool = False,
    compress: str = "none",
    whole_cross: bool = False,
    cache: Rule | None = None,
    micro_batches: bool = False,
) -> Sampler:
    """Keep this rank's part of the model and return its sampler: every method is a call of this.

    Args:
        dit: the model, not filled yet.
        fabric: this rank's; its mesh says what is shared with whom.
        attention: makes the buffers of one batch of images, and returns what the self-attention sites do in a job.
        states: what a convolution sees of rows in other patches than its own.
        patches: M, the patches of this rank's band of token rows.
        split: layers per stage.
        warmup: W, the synchronous steps; None: all steps are; auto: until the prediction changes by less than
            `warmup_threshold` in a step, see `AutoWarmup`.
        stride: all stages compute at once after the warm-up, in every so many steps, see `Layout.jobs`.
        time_shift: a stage gets the timestep of the step that its input was made in.
        forecast: stages take patches in rotation, see `Layout.jobs`; so many differences of its inputs stand for the
            one that has not come.
        first_patch: the published treatment of an MM-DiT's prompt, see `Messages`.
        compress: how residuals of hidden states go from stage to stage behind the warm-up, see `StageResiduals`.
        whole_cross: tensor parallelism leaves cross-attentions whole.
        cache: when blocks are skipped, see `StepCache`; None: never.
        micro_batches: synchronous steps go through the stages image by image and branch by branch, see `Job`.
    """
    layout = make_layout(dit.shape, fabric.axis, patches, split)
    dit.keep(layout.layers, embed=layout.first, unembed=layout.last)
    shard(dit, fabric, whole_cross)
    piped = micro_batches and len(layout.stages) > 1

    def sampler(noise: Tensor, cond: Conditioning, scheduler: Any) -> Tensor | None:
        guidance = Guidance(fabric, cond, dit.shape)
        own = guidance.own_images(noise)
        steps = len(scheduler.timesteps)
        auto = warmup == AUTO
        first = warmup if isinstance(warmup, int) else 1 if auto else steps
        batch = own.shape[0] * guidance.branches

        def cut(jobs: Sequence[Job]) -> list[Job]:
            return [part for job in jobs for part in (job.micro_batches(batch) if piped else [job])]

        jobs = own_jobs(layout.jobs(steps, first, stride, forecast is not None), first, fabric.axis("step"))
        possible = cut([*layout.jobs(steps, steps), *jobs] if auto else jobs)
        padding = guidance.cond.stacked("padding") if "padding" in guidance.cond.prompt else None
        run = Run(fabric, dit.shape, layout, possible, batch, dit.dtype, padding)
        step_cache = StepCache(run, dit, cache, warmup is None) if cache else None
        stage = Stage(
            dit, run, own, guidance, scheduler, first, first_patch, compress, time_shift, forecast, step_cache
        )
        attend_for, convolve_for = attention(run), convolution(run, states)
        found_out = AutoWarmup(run, warmup_threshold) if auto else None
        jobs = cut(jobs[:1] if found_out else jobs)  # the others when they are known
        for index, job in enumerate(jobs):
            fabric.begin(job.at)
            stage.begin(job)
            tokens = stage.receive(job, jobs[index + 1 : index + 2])
            tokens = stage.compute(job, tokens, attend_for(job), convolve_for(job))
            prediction = stage.emit(job, tokens)
            if found_out and index + 1 == len(jobs) and job.driven.stop < steps:
                jobs += cut(found_out.following(job, prediction))
                stage.await_input(jobs[index + 1])
        if found_out:
            found_out.drain()
            fabric.ledger.warmup = sum(job.sync and job.ends for job in jobs)
        latents = stage.finish()
        return None if latents is None else cond.completed(latents)

    return sampler


class Stage:
    """One rank's stage of one batch of images, and what travels to and from it."""

    def __init__(
        self,
        dit: DiT,
        run: Run,
        noise: Tensor,
        guidance: Guidance,
        scheduler: Any,
        warmup: int,
        first_patch: bool,
        compress: str,
        time_shift: bool,
        forecast: int | None,
        cache: StepCache | None,
    ):
        fabric, layout, shape = run.fabric, run.layout, dit.shape
        self.dit, self.run, self.layout, self.guidance, self.cache = dit, run, layout, guidance, cache
        self.timesteps = timesteps_on(fabric.device, scheduler)
        self.experts = experts_by_step(shape.experts, scheduler)
        self.finite = Finite(run.steps, fabric.device)
        parts = guidance.parts(len(noise)) if any(job.at.micro >= 0 for job in run.jobs) else []
        self.texts = [dit.text(cond) for cond in (*parts, guidance.cond)]  # of all entries at -1
        self.cross = dit.cross(self.texts[-1])
        fabric.ledger.hold("buffer", sum(x.nbytes for kv in self.cross.values() for x in kv))
        bands = dict.fromkeys(job.rows for job in run.jobs)
        self.positions = {rows: dit.positions(rows, layout.prompt) for rows in bands}
        self.arriving = Messages(shape, layout, layout.stage, first_patch)
        self.leaving = Messages(shape, layout, layout.stage + 1, first_patch)
        self.rebuilt, self.sent = (
            None if compress == "none" or end else StageResiduals(run, compress, messages)
            for end, messages in ((layout.first, self.arriving), (layout.last, self.leaving))
        )
        self.skips = StageSkips(run)
        self.latents = Latents(run, noise) if layout.first or layout.last else None
        self.rounds = Rounds(run, warmup, noise)
        if layout.last:
            self.schedulers = PatchSchedulers(scheduler, len(layout.patches))
            tokens = run.most_tokens * shape.denoised_tokens // shape.tokens
            guidance.reserve(noise.shape[0] * shape.in_channels * shape.patch_size**2 * tokens, run.dtype)
        self.outbox = Outbox(fabric, (layout.stage + 1) % len(layout.stages))
        self.inbox: Inbox | None = None
        self.forecast: Forecast | None = None
        if not layout.first:
            largest = max(self.arriving.tokens(job) for job in run.jobs) * run.batch * shape.hidden
            self.inbox = Inbox(fabric, layout.stage - 1, largest, run.dtype)
            self.await_input(run.jobs[0])
            late = [job for job in run.jobs if job.late]
            if late and forecast is not None:
                self.forecast = Forecast(run, late[0], self.arriving, forecast)
        self.at, self.shifted = (-1, -1), time_shift and not layout.first
        self.predictions: list[Tensor] = []

    def begin(self, job: Job) -> None:
        """Start a job; the modulation of a step, or of its micro-batch, is made once, by its first."""
        self.skips.begin(job)
        self.rounds.begin(job)
        self.text = self.texts[job.at.micro]
        if (job.step, job.at.micro) != self.at:
            self.at = job.step, job.at.micro
            source = job.origin.step if self.shifted else job.step
            self.expert = self.experts[source]
            text = for_expert(self.text, self.expert)
            self.modulation = self.dit.modulation(self.timesteps[source], text, self.run.entries(job))

    def await_input(self, job: Job) -> None:
        """Start receiving what a job reads, if it comes from a stage before."""
        if self.inbox is None:
            return
        if self.cache:
            self.cache.post(job)
        if self.rebuilt and not job.sync:
            self.inbox.post(job.origin, (self.rebuilt.nbytes(job),), torch.uint8)
        else:
            size = self.run.entries(job), self.arriving.tokens(job), self.run.shape.hidden
            self.inbox.post(job.origin, size)

    def receive(self, job: Job, following: Sequence[Job]) -> Tokens:
        """The tokens of a job: embedded here, or of the stage before; those of the `following` are awaited."""
        if self.inbox is None:
            assert self.latents is not None
            latent = self.guidance.expand(self.latents.take(job))[job.entries]
            tokens = self.dit.embed(latent, job.rows, self.text, self.modulation)
            return tokens.share(self.layout.prompt)
        for each in following:
            self.await_input(each)
        message = self.inbox.take(job.origin)
        if self.rebuilt:
            message = self.rebuilt.decode(job, message)
        if self.forecast:
            message = self.forecast.read(job, message)
        if not self.dit.layers and not self.layout.last:
            message = message.clone()  # an empty stage must not send from a buffer that is received into
        return self.arriving.unpack(job, message, self.run.fabric)

    def compute(self, job: Job, tokens: Tokens, attend: Attend, convolve: Convolve) -> Tokens:
        """The tokens behind this stage's blocks."""
        cross, places = self.cross, self.positions[job.rows]
        if job.at.micro >= 0:
            cross = {layer: (k[job.entries], v[job.entries]) for layer, (k, v) in cross.items()}
        given = Given(self.text, self.modulation, places, cross, self.layout.prompt, convolve)

        def blocks(tokens: Tokens, layers: range) -> Tokens:
            return run_blocks(self.dit, tokens, given, attend, self.skips, layers)

        if self.cache:
            tokens = self.cache.compute(job, tokens, given, blocks)
        else:
            tokens = blocks(tokens, self.layout.layers)
        self.skips.end()
        return tokens

    def emit(self, job: Job, tokens: Tokens) -> Tensor | None:
        """Pass tokens on to the next stage; the last one guides, steps each patch and sends its latent to the first.

        What the last one returns is its guided prediction [B, C, h, W], behind the last micro-batch of a step.
        """
        if not self.layout.last:
            if job.read:
                message = self.leaving.pack(job, tokens)
                self.outbox.put(self.sent.encode(job, message) if self.sent else message, job.at)
            return None
        assert self.latents is not None
        prediction = self.dit.unembed(tokens.image, self.modulation, job.rows)
        if job.at.micro >= 0:
            self.predictions.append(prediction)
            if not job.ends:
                return None
            prediction = torch.cat(self.predictions)
            self.predictions.clear()
        prediction = self.guidance.combine(prediction, self.expert, job.at)  # [B, C, h, W]
        for patch, part in self.latents.split(job, prediction):
            latent = self.latents.parts[patch]
            self.rounds.send(job, part)
            for step in job.driven:
                latent = self.schedulers.step(patch, step, self.rounds.newest(step, part), latent)
                self.finite.note(step, latent)
                latent = self.rounds.agree(step, latent)
            self.latents.parts[patch] = latent
            if not self.layout.first:
                self.outbox.put(latent, Where(job.step, -1, patch))
        return prediction

    def finish(self) -> Tensor | None:
        """Wait for all that is under way; the latents of all images on ranks of the first stage and step."""
        self.outbox.drain()
        self.skips.drain()
        if self.cache:
            self.cache.drain()
        self.finite.require(self.run.fabric.rank)
        if not self.layout.first or not self.rounds.leads:
            return None
        assert self.latents is not None
        return self.latents.gather(self.run.steps)
