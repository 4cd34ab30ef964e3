"""Latents of a rank's own share, patch by patch: where they are embedded and where the scheduler steps them."""

from __future__ import annotations

import torch
from torch import Tensor

from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.layout import Job, Layout
from pipefusion.core.ledger import Where


class Latents:
    """The latent [B, C, h, W] of each patch's share, float32 whatever the model computes in (video: [B, C, F, h, W]).

    In a pipeline the last stage steps a patch and sends it back at once, and the first one receives it in place, so
    that consecutive steps overlap with no flush.
    """

    def __init__(self, fabric: Fabric, layout: Layout, noise: Tensor):
        self.fabric, self.layout = fabric, layout
        self.parts: list[Tensor] = []
        for rows in layout.shares:
            part = layout.grid.take_latent(noise, rows)
            self.parts.append(fabric.empty("buffer", *part.shape, dtype=torch.float32).copy_(part))
        self._arriving: dict[int, Work] = {}

    def take(self, job: Job) -> Tensor:
        """The latent [B, C, h, W] of a job. In a pipeline the receive of its successor is posted behind it."""
        for patch in job.patches:
            if patch in self._arriving:
                self._arriving.pop(patch).wait()
        whole = torch.cat([self.parts[patch] for patch in job.patches], dim=self.layout.grid.dim)
        if not self.layout.last:  # received in place: this step's has been read, and causes the next one
            for patch in job.patches:
                at, source = Where(job.step, -1, patch), len(self.layout.stages) - 1
                self._arriving[patch] = self.fabric.irecv(self.parts[patch], source, axis="pipe", at=at)
        return whole

    def split(self, job: Job, prediction: Tensor) -> list[tuple[int, Tensor]]:
        """The prediction [B, C, h, W] of a job by patch."""
        shares = [self.layout.shares[patch] for patch in job.patches]
        return list(zip(job.patches, self.layout.grid.split_latent(prediction, shares), strict=True))

    def gather(self, steps: int) -> Tensor:
        """The latents of all images [B, C, H, W], on every rank of the first stage; what is under way is waited for."""
        for work in self._arriving.values():
            work.wait()
        own = torch.cat(self.parts, dim=self.layout.grid.dim)
        at = Where(step=steps)
        lines = [own]
        for axis in ("ulysses", "ring", "patch"):  # innermost first: the order of `layout.bands`
            lines = list(gather(self.fabric, torch.stack(lines), axis, at).flatten(0, 1))
        whole = self.layout.grid.join_latents(self.layout.bands, lines) if len(lines) > 1 else lines[0]
        return gather(self.fabric, whole, "data", at).flatten(0, 1)


def gather(fabric: Fabric, tensor: Tensor, axis: str, at: Where) -> Tensor:
    """Every rank's tensor [n, ...] in the order of the axis."""
    n = fabric.axis(axis).size
    if n == 1:
        return tensor[None]
    out = fabric.empty("comm", n, *tensor.shape, dtype=tensor.dtype)
    fabric.all_gather(out, tensor.contiguous(), axis=axis, at=at)
    return out
