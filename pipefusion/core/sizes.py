"""Bytes that recur in what a rank holds and sends: of a token, of a state, of the prompt, of the latents."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from pipefusion.core import closed_forms as forms
from pipefusion.core.layout import Job, Layout
from pipefusion.core.parallel import Parallel
from pipefusion.core.shape import DiTShape


@dataclass(frozen=True)
class Sizes:
    """Bytes that recur, for one rank."""

    shape: DiTShape
    parallel: Parallel
    layout: Layout
    images: int
    batch: int

    @property
    def inner(self) -> int:
        """One token's part of K (or Q, V) inside the Ulysses exchange, for the whole batch, padded heads included."""
        heads = ceil(self.shape.heads / (self.parallel.ulysses * self.parallel.tensor))
        return heads * self.shape.head_dim * self.batch * self.shape.itemsize

    @property
    def sums(self) -> int:
        """Linear attention's sums over the tokens of a patch, h * d * (d + 1) * b of float32."""
        return 4 * (self.shape.head_dim + 1) * self.inner // self.shape.itemsize

    @property
    def edges(self) -> int:
        """First and last row of a share of a patch at a convolution, where there is more than one share."""
        if len(self.layout.units) * self.layout.lanes == 1:
            return 0
        pixel = self.shape.convolved // self.parallel.tensor * self.batch * self.shape.itemsize
        return 2 * self.layout.grid.width * pixel

    @property
    def state(self) -> int:
        """What linear attention and convolutions keep of a patch in a layer, whatever its tokens."""
        return self.sums + self.layout.lanes * self.edges

    @property
    def hidden(self) -> int:
        """One token's hidden state, for the whole batch."""
        return self.shape.hidden * self.batch * self.shape.itemsize

    @property
    def prompt(self) -> int:
        """Hidden states of this rank's share of an MM-DiT's prompt, for the whole batch."""
        return len(self.layout.prompt) * self.hidden

    @property
    def latent(self) -> int:
        """This rank's share of the latents, float32."""
        return forms.latent_bytes(self.shape, self.images) * self.layout.tokens // self.shape.tokens

    def prediction(self, job: Job) -> int:
        """One branch's prediction of a job, in the model's precision."""
        pixels = job.tokens * self.shape.denoised_tokens // self.shape.tokens * self.shape.patch_size**2
        return self.images * self.shape.in_channels * pixels * self.shape.itemsize
