"""Step caches: the blocks of a job are skipped where little has changed since they were computed.

A stage keeps what its blocks have added to the image's tokens when they were last computed, and adds it again in a job
that is skipped. The first stage decides for each job, of one or more patches, from how much a signal has changed:

- `fbcache` (first-block cache, of ParaAttention and diffusers): the signal is what the first block adds, so this block
  is computed in every job; it is compared with that of the last job that was computed.
- `teacache` (TeaCache, arXiv 2411.19108): the signal is the input of the first block's self-attention, normed and
  modulated by the timestep; its changes from step to step, each through the model's polynomial, are added up until a
  job is computed.

The change is sum |signal - known| / sum |known| over the images, guidance branches and tokens of a job, summed over all
ranks that share them, so that these decide the same. A decision travels with the job from stage to stage, ahead of its
hidden states. The first W steps (at least one) and the last one are computed in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.change import DECISION, Change
from pipefusion.core.checks import Settings, unknown_choice
from pipefusion.core.dit import DiT, Given, Tokens
from pipefusion.core.layout import Job
from pipefusion.core.messages import Inbox, Outbox
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.run import Run
from pipefusion.core.shape import DiTShape

CACHES = ("none", "fbcache", "teacache")

Blocks = Callable[[Tokens, range], Tokens]
"""Tokens behind these layers of the job at hand."""


class Rule(NamedTuple):
    """`fbcache` or `teacache`, and the relative change from which on a job is computed.

    Where there are no values to decide by, the share of the decisions that compute; None: all do.
    """

    name: str
    threshold: float
    computed: float | None = None


def cache_rule(cfg: Settings) -> Rule | None:
    """The rule that `method.cache` and the keys beside it name."""
    return None if cfg.cache == "none" else Rule(cfg.cache, cfg.cache_threshold, cfg.cache_computed)


def no_cache(cfg: Settings, who: str) -> Problem | None:
    """Refusal of a step cache by a method whose ranks are in different steps at once."""
    if cfg.cache == "none":
        return None
    text = f"{cfg.cache} decides step by step, and {who} are in different ones at once"
    return Problem("method.cache", f"{text}; allowed: none")


def decided(job: Job, steps: int, exact: bool) -> bool:
    """Whether a job may be skipped: not in the first step, the last one, or a displaced method's warm-up."""
    return job.step > 0 and job.driven.stop < steps and (exact or not job.sync)


def skips_blindly(job: Job, share: float | None) -> bool:
    """Whether a job is skipped where nothing is known but the share that is computed: evenly over the steps."""
    return share is not None and int((job.step + 1) * share) == int(job.step * share)


def check_cache(shape: DiTShape, parallel: Parallel, cfg: Settings) -> Problem | None:
    """What a step cache does not go with: two experts; in a pipeline long skips, and a first stage not first."""
    if cfg.cache == "none":
        return None
    problem = unknown_choice("method.cache", cfg.cache, CACHES)
    if problem is None and shape.experts:
        text = f"{cfg.cache} would let what one expert has added stand for the other's"
        problem = Problem("method.cache", f"{text}; allowed: none")
    if problem or parallel.pipe == 1:
        return problem
    if shape.skips:
        text = f"{cfg.cache} would leave stages without the long skips that {parallel.pipe} of them send"
        return Problem("method.cache", f"{text} each other; allowed: none, or one stage")
    if getattr(cfg, "order", "plain") != "plain":
        text = f"{cfg.cache} is decided on the first stage, which is not the first to take each patch"
        return Problem("method.cache", f"{text}; allowed: none, or method.order=plain")
    if not forms.stages(shape, parallel.pipe, getattr(cfg, "split", "even"))[0]:
        text = f"{cfg.cache} is decided on the first stage, which method.split leaves without a layer"
        return Problem("method.cache", f"{text}; allowed: none, or a layer there")
    return None


class StepCache:
    """What one stage keeps of its blocks, and whether it computes them in a job."""

    def __init__(self, run: Run, dit: DiT, rule: Rule, exact: bool):
        fabric, layout = run.fabric, run.layout
        self.run, self.dit, self.rule, self.exact = run, dit, rule, exact
        self.head = layout.layers[: layout.first and rule.name == "fbcache"]
        self.tail = layout.layers[len(self.head) :]
        if self.tail:
            size = (run.batch, layout.tokens, run.shape.hidden)
            self.added = fabric.empty("buffer", *size, dtype=run.dtype)
        if layout.first:
            polynomial = dit.teacache if rule.name == "teacache" else None
            self.change = Change(run, rule.threshold, polynomial)
        else:
            self.inbox = Inbox(fabric, layout.stage - 1, 1, DECISION)
        self.outbox = None if layout.last else Outbox(fabric, layout.stage + 1)

    def post(self, job: Job) -> None:
        """Start receiving the decision on a job, ahead of its hidden states."""
        if decided(job, self.run.steps, self.exact):
            self.inbox.post(job.at, (1,))

    def compute(self, job: Job, tokens: Tokens, given: Given, blocks: Blocks) -> Tokens:
        """The tokens of a job behind this stage's blocks, or what stands for them."""
        before, tokens = tokens, blocks(tokens, self.head)
        skips = self.decide(job, before, tokens, given)
        self.run.fabric.ledger.decisions[job.at] = not skips
        if not self.tail:
            return tokens
        added = self.added[:, job.own]
        if skips:
            return tokens._replace(image=tokens.image + added)
        after = blocks(tokens, self.tail)
        added.copy_(after.image - tokens.image)
        return after

    def decide(self, job: Job, before: Tokens, after: Tokens, given: Given) -> bool:
        """Whether to skip a job; passed on to the next stage."""
        may = decided(job, self.run.steps, self.exact)
        blind = self.run.fabric.device.type == "meta"
        planned = skips_blindly(job, self.rule.computed) if may and blind else None
        skips = False
        if self.run.layout.first:
            skips = self.change.is_small(job, self.signal(before, after, given), may, planned)
        elif may:
            message = self.inbox.take(job.at)
            skips = bool(message) if planned is None else planned
        if self.outbox and may:
            decision = torch.full((1,), skips, dtype=DECISION, device=self.run.fabric.device)
            self.outbox.put(decision, job.at)
        return skips

    def signal(self, before: Tokens, after: Tokens, given: Given) -> Tensor:
        """What tells how much a job changes, [b, t, hs]."""
        if self.head:
            return after.image - before.image
        return self.dit.modulated(before, given)

    def drain(self) -> None:
        """Wait for all decisions that were sent."""
        if self.outbox:
            self.outbox.drain()
