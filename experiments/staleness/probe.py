"""Freshness: of which step are the K, V that a method's self-attention sees? Asked of the method's own `attend`.

A hollow model computes nothing. At each site it hands q = 0, so that attention is the plain mean over the tokens
attended to, and as v of each token a one in the channel of its step and token row. What comes back is then, for every
step and row, the share of the attended tokens that have their K, V from there; what is missing was never written
(zeroed buffers, W = 0). Works on any method and product of degrees, and exactly: shares are whole numbers of the tokens
that the method says it attends to, or the method is not what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.config import RunConfig
from experiments.journal import Row
from experiments.methods import METHODS, parallel_degrees
from experiments.session import Session
from experiments.staleness.traced import Marked, Place, TracedView
from experiments.staleness.watch import row_columns
from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import KV, DiT, Given, Tokens
from pipefusion.core.fabric import Fabric
from pipefusion.core.grid import Band, rows_in
from pipefusion.core.shape import DiTShape

NEVER, ABSENT = -1, -2
"""In place of the step of K, V: never written, and not attended to."""


@dataclass(frozen=True)
class Seen:
    """What one self-attention saw: `counts` [S, token rows], image tokens attended to by step and row of their K, V.

    `job` numbers what a rank computes: a step, or a step of one patch. `attended` are the token rows that the method
    declares, `tokens` those of the image in them.
    """

    place: Place
    job: int
    counts: Tensor
    attended: Sequence[int]
    tokens: int

    @property
    def ages(self) -> list[int]:
        """Image tokens by the age of their K, V in steps: 0 is fresh. Length S; `never` is not among them."""
        by_step = self.counts.sum(1).tolist()
        step = self.place.step
        return [by_step[step - age] if age <= step else 0 for age in range(len(by_step))]

    @property
    def never(self) -> int:
        """Image tokens whose K, V were never written."""
        return self.tokens - int(self.counts.sum())

    @property
    def origins(self) -> tuple[int, ...]:
        """The step of each token row's K, V, `NEVER` or `ABSENT`. Raises ValueError if a row is of several steps."""
        if int((self.counts > 0).sum(0).max()) > 1:
            raise ValueError(f"{self.place}: the tokens of one row are of several steps")
        found = torch.where(self.counts.any(0), self.counts.argmax(0), NEVER).tolist()
        return tuple(step if row in self.attended else ABSENT for row, step in enumerate(found))


class HollowView(TracedView):
    """A view that computes nothing, has no weights, and writes down what every self-attention saw."""

    def __init__(self, inner: DiT, timesteps: Tensor, rank: int, cfg: RunConfig, seen: list[Seen]):
        super().__init__(inner, timesteps, rank)
        self.cfg, self.seen = cfg, seen
        self.heads = self.shape.heads // parallel_degrees(cfg).tensor
        self._job = -1
        self._last: tuple[int, Band] = (-1, range(0))

    def load(self, tensors: Callable[..., Tensor], device: torch.device) -> None:
        """Nothing is computed, and nothing needed for it."""

    def text(self, cond: Conditioning) -> None:
        return None

    def cross(self, text: None) -> Mapping[int, KV]:
        return {}

    def modulation(self, timestep: Tensor, text: Any, batch: int) -> Marked:
        return Marked(self.steps[float(timestep)], None)

    def positions(self, rows: Band, prompt: range) -> Marked:
        return Marked(rows, None)

    def embed(self, latent: Tensor, rows: Band, text: None, modulation: Marked) -> Tokens:
        shape, batch = self.shape, latent.shape[0]
        image = latent.new_zeros(batch, len(rows) * shape.grid.width, shape.hidden)
        return Tokens(
            image, latent.new_zeros(batch, shape.joint_tokens, shape.hidden) if shape.joint else None
        )

    def unembed(self, image: Tensor, modulation: Marked, rows: Band) -> Tensor:
        grid, size = self.shape.grid, [image.shape[0], *self.shape.latent_size]
        size[grid.dim] = len(rows) * grid.thickness
        return image.new_zeros(size)

    def at_block(
        self, place: Place, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None
    ) -> Tokens:
        shape, batch = self.shape, tokens.image.shape[0]
        prefix = shape.own_prefix(place.layer, given.prompt)
        size = (batch, prefix + tokens.image.shape[1], self.heads, shape.head_dim)
        q, k = tokens.image.new_full(size, float(shape.linear)), tokens.image.new_ones(size)
        out = attend(place.layer, q, k, self.written(place, size), prefix)
        if (place.step, place.rows) != self._last:
            self._job, self._last = self._job + 1, (place.step, place.rows)
        attended = rows_attended(self.cfg, shape, place)
        counts = self.counted(place, out[:, prefix:].flatten(2), attended)
        self.seen.append(Seen(place, self._job, counts, attended, len(attended) * shape.grid.width))
        # New ones, as a block makes: a pipeline sends what it returns.
        return Tokens(tokens.image.clone(), None if tokens.text is None else tokens.text.clone())

    def written(self, place: Place, size: tuple[int, int, int, int]) -> Tensor:
        """v [b, T + t, H, d]: a one for each image token in the channel, over the whole batch, of its step and row."""
        shape, (batch, length, heads, dim) = self.shape, size
        row = torch.tensor(rows_in(place.rows)).repeat_interleave(shape.grid.width)
        channel = place.step * shape.lines + row
        v, own = torch.zeros(batch, length, heads * dim), heads * dim
        v[channel // own, length - len(row) + torch.arange(len(row)), channel % own] = 1
        return v.unflatten(2, (heads, dim))

    def counted(self, place: Place, out: Tensor, rows: Sequence[int]) -> Tensor:
        """Tokens [S, token rows] from the mean over all that were attended to, out [b, t, hs] of the image's.

        Raises ValueError if these are no whole numbers, or other tokens than those of `rows`, each once.
        """
        shape, steps = self.shape, len(self.steps)
        # The prompt's are attended to as well, and carry nothing.
        attended = shape.prefix(place.layer) + len(rows) * shape.grid.width
        mean = out.mean(1).flatten()[: steps * shape.lines]
        tokens = mean.view(steps, shape.lines) * attended
        counts = tokens.round()
        most = torch.zeros(shape.lines).index_fill(0, torch.tensor([*rows]), shape.grid.width)
        if float((tokens - counts).abs().max()) > 0.01 or bool((counts.sum(0) > most).any()):
            text = (
                f"attention of equal scores is not the mean over {attended} tokens, those of rows {[*rows]}"
            )
            raise ValueError(f"{place}: {text}")
        return counts.to(torch.int64)


def rows_attended(cfg: RunConfig, shape: DiTShape, place: Place) -> Sequence[int]:
    """The token rows that a job attends to, as the method declares them: all in a synchronous step."""
    warmup = getattr(cfg.method, "warmup", None)
    if warmup is None or place.step < warmup:
        return range(shape.lines)
    return METHODS[cfg.method.name].attends(shape, parallel_degrees(cfg), cfg.method, place.rows)


def probe(cfg: RunConfig, session: Session) -> list[Seen]:
    """What every self-attention of every job of every rank saw, on a view without data; in the order it happened."""
    shape, timesteps, parallel = (
        session.model(cfg.model).shape.cut(cfg.method.patch_axis),
        session.scheduler(cfg).timesteps,
        parallel_degrees(cfg),
    )
    channels = shape.hidden // parallel.tensor
    pictures = -(-len(timesteps) * shape.lines // channels) * parallel.data  # as many as channels are needed
    prompt = {"prompt": torch.zeros(pictures, 0)}
    cond = Conditioning(prompt, 2.0, prompt if parallel.cfg > 1 else None)
    seen: list[Seen] = []

    def hollow(dit: DiT, fabric: Fabric) -> HollowView:
        return HollowView(dit, timesteps, fabric.rank, cfg, seen)

    session.simulate(cfg, torch.zeros(pictures, *shape.latent_size), cond, torch.empty, hollow)
    return seen


def freshness_rows(seen: Sequence[Seen]) -> Iterator[Row]:
    """One row a self-attention, by rank and in the order of its jobs; `ages` and `never` count image tokens."""
    for one in sorted(seen, key=lambda one: (one.place.rank, one.job, one.place.layer)):
        rank, step, rows, layer = one.place
        place = {"rank": rank, "job": one.job, "step": step} | row_columns(rows)
        yield place | {"layer": layer, "tokens": one.tokens, "ages": one.ages, "never": one.never}
