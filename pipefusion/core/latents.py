"""Latents of a rank's own share, patch by patch: where they are embedded and where the scheduler steps them."""

from __future__ import annotations

import torch
from torch import Tensor

from pipefusion.core.fabric import Fabric, Work
from pipefusion.core.layout import Job
from pipefusion.core.ledger import Where
from pipefusion.core.run import Run


class Latents:
    """The latent [B, C, h, W] of each patch's share, float32 whatever the model computes in (video: [B, C, F, h, W]).

    In a pipeline the last stage steps a patch and sends it back at once, and the first one receives it in place, so
    that consecutive steps overlap with no flush. Where the last stage takes patches in another order than the first, a
    new latent may be there before the old one is read: those of even and of odd steps have places of their own.
    """

    def __init__(self, run: Run, noise: Tensor):
        self.fabric, self.layout = run.fabric, run.layout
        cuts = [run.layout.grid.take_latent(noise, rows) for rows in run.layout.shares]
        self.copies = [
            [self.fabric.empty("buffer", *part.shape, dtype=torch.float32).copy_(part) for part in cuts]
            for _ in range(run.layout.latent_copies(run.jobs))
        ]
        self.parts = self.copies[0]
        self._arriving: dict[tuple[int, int], Work] = {}

    def at(self, step: int) -> list[Tensor]:
        """The latents that the first stage reads in a step, patch by patch."""
        return self.copies[step % len(self.copies)]

    def take(self, job: Job) -> Tensor:
        """The latent [B, C, h, W] of a job. In a pipeline the receive of the new ones is posted behind its last."""
        for patch in job.patches:
            if (job.step, patch) in self._arriving:
                self._arriving.pop((job.step, patch)).wait()
        whole = torch.cat([self.at(job.step)[patch] for patch in job.patches], dim=self.layout.grid.dim)
        if job.ends and not self.layout.last:  # received where nothing is left to read
            source, following = len(self.layout.stages) - 1, job.driven.stop
            for patch in job.returned:
                out, at = self.at(following)[patch], Where(job.step, -1, patch)
                work = self.fabric.irecv(out, source, axis="pipe", at=at)
                self._arriving[following, patch] = work
        return whole

    def split(self, job: Job, prediction: Tensor) -> list[tuple[int, Tensor]]:
        """The prediction [B, C, h, W] of a job by patch."""
        shares = [self.layout.shares[patch] for patch in job.patches]
        return list(zip(job.patches, self.layout.grid.split_latent(prediction, shares), strict=True))

    def gather(self, steps: int) -> Tensor:
        """The latents of all images [B, C, H, W], on every rank of the first stage; what is under way is waited for."""
        for work in self._arriving.values():
            work.wait()
        own = torch.cat(self.at(steps), dim=self.layout.grid.dim)
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
