"""Messages between stages: hidden states of a job, behind those of an MM-DiT's prompt where these go along."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.dit import Tokens
from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.layout import Job, Layout
from pipefusion.core.ledger import Where
from pipefusion.core.shape import DiTShape


class Inbox:
    """Hidden states from the previous stage: one message a job, received into two alternating buffers."""

    def __init__(self, fabric: Fabric, source: int, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype):
        self.fabric, self.source, self.shapes = fabric, source, shapes
        largest = max(torch.Size(shape).numel() for shape in shapes)
        self.buffers = [fabric.empty("comm", largest, dtype=dtype) for _ in range(2)]
        self.posted: deque[tuple[Tensor, Work]] = deque()

    def post(self, index: int, at: Where) -> None:
        """Start receiving the input of job number `index`; nothing when there is no such job."""
        if index < len(self.shapes):
            shape = self.shapes[index]
            out = self.buffers[index % 2][: torch.Size(shape).numel()].view(shape)
            self.posted.append((out, self.fabric.irecv(out, self.source, axis="pipe", at=at)))

    def take(self) -> Tensor:
        """Wait for the oldest message that was posted. It stays valid until the next but one is posted."""
        out, work = self.posted.popleft()
        work.wait()
        return out


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
        self.first_patch = first_patch
        self.kept: Tensor | None = None

    def with_text(self, job: Job) -> bool:
        """Whether the prompt's tokens go along with a job."""
        return self.takes_text and (not self.first_patch or job.patches.start == 0)

    def tokens(self, job: Job) -> int:
        """Tokens of a job's message."""
        return job.tokens + self.with_text(job) * self.text_tokens

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
