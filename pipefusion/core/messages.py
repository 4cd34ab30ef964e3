"""Messages between stages: hidden states of a job, behind those of an MM-DiT's prompt where these go along."""

from __future__ import annotations

from collections import deque
from math import prod

import torch
from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.dit import Tokens
from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.layout import Job, Layout
from pipefusion.core.ledger import Where
from pipefusion.core.shape import DiTShape


class Inbox:
    """Hidden states from the previous stage, by where it made them: received into two buffers in turn."""

    def __init__(self, fabric: Fabric, source: int, largest: int, dtype: torch.dtype):
        self.fabric, self.source = fabric, source
        self.buffers = deque(fabric.empty("comm", largest, dtype=dtype) for _ in range(2))
        self.posted: dict[Where, tuple[Tensor, Work]] = {}
        self.taken: tuple[Where, Tensor] | None = None

    def post(self, at: Where, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
        """Start receiving the message that is made at `at`, unless it has been posted or is the one just taken.

        `dtype`: of its numbers, where it is not that of the buffers.
        """
        if at in self.posted or (self.taken and self.taken[0] == at):
            return
        buffer = self.buffers[0] if dtype is None else self.buffers[0].view(dtype)
        out = buffer[: prod(shape)].view(shape)
        self.buffers.rotate()
        self.posted[at] = out, self.fabric.irecv(out, self.source, axis="pipe", at=at)

    def take(self, at: Where) -> Tensor:
        """The message made at `at`, waited for the first time. It stays valid until the next but one is posted."""
        if at in self.posted:
            out, work = self.posted.pop(at)
            work.wait()
            self.taken = at, out
        assert self.taken is not None and self.taken[0] == at
        return self.taken[1]


class Outbox:
    """Sends under way: at most two, so that one drains while the next result is made."""

    def __init__(self, fabric: Fabric, to: int):
        self.fabric, self.to = fabric, to
        self.pending: deque[Work] = deque()

    def put(self, tensor: Tensor, at: Where) -> None:
        """Send a tensor that nobody writes to any more."""
        if len(self.pending) == 2:
            self.pending.popleft().wait()
        self.pending.append(self.fabric.isend(tensor.contiguous(), self.to, axis="pipe", at=at))

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

    def __init__(self, shape: DiTShape, layout: Layout, stage: int, first_patch: bool):
        self.takes_text = shape.joint and forms.takes_text(layout.stages, stage)
        self.text_tokens = len(layout.prompt)
        self.image_tokens = layout.tokens
        self.first_patch = first_patch
        self.kept: Tensor | None = None

    def with_text(self, job: Job) -> bool:
        """Whether the prompt's tokens go along with a job."""
        return self.takes_text and (not self.first_patch or job.patches.start == 0)

    def tokens(self, job: Job) -> int:
        """Tokens of a job's message."""
        return job.tokens + self.with_text(job) * self.text_tokens

    def part(self, job: Job, whole: Tensor) -> Tensor:
        """The message of a job on some patches, out of that of the whole image [b, T+p, hs]."""
        text, image = whole.tensor_split([whole.shape[1] - self.image_tokens], dim=1)
        return torch.cat([text[:, : self.tokens(job) - job.tokens], image[:, job.own]], dim=1)

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
        text, image = message.tensor_split([self.text_tokens], dim=1)
        if self.first_patch:
            if self.kept is None:
                self.kept = fabric.empty("buffer", *text.shape, dtype=text.dtype)
            text = self.kept.copy_(text)  # the message's own place is received into before the step is over
        return Tokens(image, text)
