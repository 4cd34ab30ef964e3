"""One batch of images on one rank, as attention sees it: sizes, jobs, and the buffers that these ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod

import torch
import torch.nn.functional as F
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.fabric import Fabric
from pipefusion.core.layout import Job, Layout
from pipefusion.core.ledger import Kind
from pipefusion.core.shape import DiTShape

AttendFor = Callable[[Job], Attend]
"""What the self-attention sites do in a job. Functions of this type compose: each takes the one inside it."""


@dataclass(frozen=True)
class Run:
    """`batch` is this rank's: its images times its guidance branches.

    `padding` [batch, T] says which tokens of an MM-DiT's prompts are none (None: all are real).
    """

    fabric: Fabric
    shape: DiTShape
    layout: Layout
    jobs: Sequence[Job]
    batch: int
    dtype: torch.dtype
    padding: Tensor | None = None

    @property
    def heads(self) -> int:
        """Heads of this rank's projections: all, but for tensor parallelism."""
        return self.shape.heads // self.fabric.axis("tensor").size

    @property
    def inner_heads(self) -> int:
        """Heads inside the Ulysses exchange, padded ones included."""
        return ceil(self.heads / self.fabric.axis("ulysses").size)

    @property
    def steps(self) -> int:
        """S."""
        return self.jobs[-1].driven.stop

    @property
    def most_tokens(self) -> int:
        """This rank's tokens of the largest job."""
        return max(job.tokens for job in self.jobs)

    def entries(self, job: Job) -> int:
        """The images and branches of a job."""
        return len(range(self.batch)[job.entries])

    def mask(self, prefix: int, keys: int, entries: slice = slice(None)) -> Tensor | None:
        """Bias [entries, 1, 1, keys] that leaves padding out of attention to `keys`, the prompt's first."""
        if self.padding is None or not prefix:
            return None
        padding = self.padding[entries]
        bias = torch.zeros(len(padding), prefix, dtype=self.dtype, device=padding.device)
        bias.masked_fill_(padding, float("-inf"))
        return F.pad(bias, (0, keys - prefix))[:, None, None]

    def scratch(self, kind: Kind, *shape: int) -> Scratch:
        """A buffer with room for a tensor of `shape`, for any job."""
        return Scratch(self.fabric.empty(kind, prod(shape), dtype=self.dtype))


class Scratch:
    """Memory for the largest job, viewed at the size of the one at hand."""

    def __init__(self, memory: Tensor):
        self.memory = memory

    def view(self, *shape: int) -> Tensor:
        """The first elements as a tensor of `shape`."""
        return self.memory[: prod(shape)].view(shape)
