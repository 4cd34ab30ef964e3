"""Hidden states between two stages as compressed residuals (CompactFusion, arXiv 2507.17511, whose rule this is).

Both stages hold the same base of each patch, what the next one was last given for it. Behind the synchronous steps,
whose messages go whole, the sender compresses what a patch's hidden states differ from its base by, and both add what
comes out of that: what a message leaves out is in the next one. A prompt's tokens that travel along have residuals of
their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipefusion.core.layout import Job
from pipefusion.core.messages import Messages
from pipefusion.core.residuals import Codec
from pipefusion.core.run import Run


class StageResiduals:
    """One end of the way to a stage: the bases [b, T+n, hs] of its patches, by the first of a job's patches."""

    def __init__(self, run: Run, how: str, messages: Messages):
        self.messages, self.jobs = messages, {job.patches.start: job for job in run.jobs if not job.sync}
        self.bases, self.codecs = {}, {}
        for patch, job in self.jobs.items():
            parts = [tokens for tokens in (messages.tokens(job) - job.tokens, job.tokens) if tokens]
            sizes = [(run.batch, tokens, run.shape.hidden) for tokens in parts]
            self.codecs[patch] = [Codec(how, size, run.dtype) for size in sizes]
            base = run.batch, sum(parts), run.shape.hidden
            self.bases[patch] = run.fabric.empty("buffer", *base, dtype=run.dtype)

    def nbytes(self, job: Job) -> int:
        """Bytes of a job's message."""
        return sum(codec.nbytes for codec in self.codecs[job.patches.start])

    def split(self, job: Job, hidden: Tensor) -> Sequence[Tensor]:
        """The prompt's part of a job's hidden states and the image's, as views."""
        return hidden.split([codec.size[1] for codec in self.codecs[job.patches.start]], dim=1)

    def encode(self, job: Job, hidden: Tensor) -> Tensor:
        """Hidden states [b, T+n, hs] of a job -> message: themselves in a synchronous step, else bytes [nbytes]."""
        if job.sync:
            self.start_from(job, hidden)
            return hidden
        messages = []
        codecs, bases = self.codecs[job.patches.start], self.split(job, self.bases[job.patches.start])
        for codec, base, new in zip(codecs, bases, self.split(job, hidden), strict=True):
            messages.append(codec.encode(new - base))
            base.add_(codec.decode(messages[-1]))
        return torch.cat(messages)

    def decode(self, job: Job, message: Tensor) -> Tensor:
        """Message -> hidden states as they are rebuilt, valid until the next message about these patches."""
        if job.sync:
            self.start_from(job, message)
            return message
        codecs, base = self.codecs[job.patches.start], self.bases[job.patches.start]
        messages = message.split([codec.nbytes for codec in codecs])
        # A copy of each, since bytes that are read as numbers begin at a multiple of their size.
        for codec, part, own in zip(codecs, self.split(job, base), messages, strict=True):
            part.add_(codec.decode(own.clone()))
        return base

    def start_from(self, job: Job, hidden: Tensor) -> None:
        """Both ends have got the hidden states of the whole image, or of a micro-batch of it, as they are."""
        for patch, base in self.bases.items():
            base[job.entries].copy_(self.messages.part(self.jobs[patch], hidden))
