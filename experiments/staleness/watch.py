"""Runs of any method, unchanged, with the latent before and after every step and a look at every self-attention.

The first stage embeds each row of the latent once in every step: what it embeds is the latent after the step before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.config import RunConfig
from experiments.difference import norm_of_difference, require_finite
from experiments.models.inputs import as_inputs, make_inputs
from experiments.session import Session, Tensors
from experiments.staleness.traced import Marked, Place, TracedView
from pipefusion.core.attention import Attend
from pipefusion.core.dit import DiT, Given, Tokens
from pipefusion.core.fabric import Fabric
from pipefusion.core.grid import Band, rows_in


class Attention(NamedTuple):
    """One self-attention of one job: the image tokens that its block was given [b, t, hs], q, k and v
    [b, T + t, H, d], and what the method made of them, like q. The first `prefix` tokens are the prompt's.

    Nobody writes to these tensors again.
    """

    place: Place
    image: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    prefix: int


Watch = Callable[[Attention], None]
"""What sees the self-attentions of all ranks. It must not change the tensors, and may keep them."""


class WatchedView(TracedView):
    """The inner view; the method computes and communicates as without.

    `latents` [S, images of this rank, C, H, W] is filled with what is embedded in every step.
    """

    def __init__(self, inner: DiT, timesteps: Tensor, rank: int, latents: Tensor, watch: Watch | None):
        super().__init__(inner, timesteps, rank)
        self.latents, self.watch = latents, watch
        self._times: Counter[int] = Counter()

    def embed(self, latent: Tensor, rows: Band, text: Any, modulation: Marked) -> Tokens:
        grid, images = self.shape.grid, latent[: self.latents.shape[1]]  # of one guidance branch
        for row, pixels in zip(rows_in(rows), images.split(grid.thickness, dim=grid.dim), strict=True):
            grid.take_latent(self.latents[self._times[row]], range(row, row + 1)).copy_(pixels)
            self._times[row] += 1
        return self.inner.embed(latent, rows, text, modulation.value)

    def at_block(
        self, place: Place, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None
    ) -> Tokens:
        watch = self.watch
        if watch is None:
            return super().at_block(place, tokens, given, attend, skip)
        # Copies of what may lie in a communication buffer: a stage's first input, a method's result.
        image = tokens.image.clone()

        def watched(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            out = attend(layer, q, k, v, prefix)
            watch(Attention(place, image, q, k, v, out.clone(), prefix))
            return out

        return super().at_block(place, tokens, given, watched, skip)


def latents_by_step(
    cfg: RunConfig, session: Session, watch: Watch | None = None, tensors: Tensors | None = None
) -> Tensor:
    """The noise, and the latent after every step of a run on simulated devices: [S + 1, B, C, H, W].

    Raises RankFailed and SimulationError, and NotFinite where a row was not embedded in every step.
    """
    assert cfg.guidance_scale is not None
    noise, cond = as_inputs(make_inputs(cfg, session.model(cfg.model)), cfg.guidance_scale)
    timesteps = session.scheduler(cfg).timesteps
    found = torch.full((len(timesteps) + 1, *noise.shape), float("nan"))

    def watched(dit: DiT, fabric: Fabric) -> WatchedView:
        data = fabric.axis("data")
        own = found[:-1].chunk(data.size, dim=1)[data.index]
        return WatchedView(dit, timesteps, fabric.rank, own, watch)

    found[-1] = session.simulate(cfg, noise, cond, tensors, watched)[0]
    return require_finite(found, "the latent of a step")


def relative(got: Tensor, want: Tensor) -> float:
    """||got - want|| / ||want||, a mean over pictures and branches: [b, ...] twice. Raises NotFinite."""
    return float(norm_of_difference(got, want).mean())


def row_columns(rows: Band) -> dict[str, int]:
    """The columns of a band: first row, the row after the last, and how many rows it has between them."""
    every = rows_in(rows)
    return {"row_start": every[0], "row_stop": every[-1] + 1, "rows": len(every)}
