"""Freshness: of which step are the K, V that a method's self-attention sees? Asked of the method's own `attend`.

A hollow model computes nothing. At each site it hands q = k = 0, so that attention is the plain mean over the tokens
attended to, and as v of each token a one in the channel of its step and token row. What comes back is then, for every
step and row, the share of the attended tokens that have their K, V from there; what is missing was never written
(zeroed buffers, W = 0). Works on any method, and exactly: shares are whole numbers of the tokens that the method says
it attends to, or the method is not what it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.staleness.settings import Setting, simulate
from experiments.staleness.traced import Marked, Place, TracedView
from pipefusion.core.attention import Attend
from pipefusion.core.dit import KV, Conditioning, DiT, Given, Tokens

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

    def __init__(self, inner: DiT, timesteps: Tensor, rank: int, setting: Setting, seen: list[Seen]):
        super().__init__(inner, timesteps, rank)
        self.setting, self.seen = setting, seen
        self._job, self._last = -1, (-1, range(0))

    def text(self, cond: Conditioning) -> None:
        return None

    def cross(self, text: None) -> Mapping[int, KV]:
        return {}

    def modulation(self, timestep: Tensor, text: Any, batch: int) -> Marked:
        return Marked(self.steps[float(timestep)], None)

    def positions(self, rows: range) -> Marked:
        return Marked(rows, None)

    def embed(self, latent: Tensor, rows: range, text: None) -> Tokens:
        shape, batch = self.shape, latent.shape[0]
        image = latent.new_zeros(batch, len(rows) * shape.token_cols, shape.hidden)
        return Tokens(
            image, latent.new_zeros(batch, shape.joint_tokens, shape.hidden) if shape.joint else None
        )

    def unembed(self, image: Tensor, modulation: Marked, rows: range) -> Tensor:
        shape = self.shape
        band = (len(rows) * shape.patch_size, shape.token_cols * shape.patch_size)
        return image.new_zeros(image.shape[0], shape.in_channels, *band)

    def at_block(
        self, place: Place, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None
    ) -> Tokens:
        shape, batch, prefix = self.shape, tokens.image.shape[0], self.shape.prefix(place.layer)
        size = (batch, prefix + tokens.image.shape[1], shape.heads, shape.head_dim)
        q, k = tokens.image.new_zeros(size), tokens.image.new_zeros(size)
        v = self.written(place, batch, size[1]).unflatten(2, (shape.heads, shape.head_dim))
        out = attend(place.layer, q, k, v, prefix)
        if (place.step, place.rows) != self._last:
            self._job, self._last = self._job + 1, (place.step, place.rows)
        attended = self.setting.attended(shape, place.step, place.rows)
        counts = self.counted(place, out.flatten(2), attended)
        self.seen.append(Seen(place, self._job, counts, attended, len(attended) * shape.token_cols))
        text = None if tokens.text is None else tokens.text.clone()
        return Tokens(
            tokens.image.clone(), text
        )  # new ones, as a block makes: a pipeline sends what it returns

    def written(self, place: Place, batch: int, length: int) -> Tensor:
        """v [b, T + t, hs]: a one for each image token in the channel, counted over the batch, of its step and row."""
        shape, prefix = self.shape, self.shape.prefix(place.layer)
        row = torch.arange(len(place.rows) * shape.token_cols) // shape.token_cols + place.rows.start
        channel = place.step * shape.token_rows + row
        v = torch.zeros(batch, length, shape.hidden)
        v[channel // shape.hidden, prefix + torch.arange(len(row)), channel % shape.hidden] = 1
        return v

    def counted(self, place: Place, out: Tensor, rows: Sequence[int]) -> Tensor:
        """Tokens [S, token rows] from the mean over all that were attended to, out [b, T + t, hs].

        Raises ValueError if these are no whole numbers, or other tokens than those of `rows`, each once.
        """
        shape, steps, prefix = self.shape, len(self.steps), self.shape.prefix(place.layer)
        # The prompt's are attended to as well, and carry nothing.
        attended = prefix + len(rows) * shape.token_cols
        mean = out[:, prefix:].mean(1).flatten()[: steps * shape.token_rows]
        tokens = mean.view(steps, shape.token_rows) * attended
        counts = tokens.round()
        most = torch.zeros(shape.token_rows).index_fill(0, torch.tensor([*rows]), shape.token_cols)
        if float((tokens - counts).abs().max()) > 0.01 or bool((counts.sum(0) > most).any()):
            text = (
                f"attention of equal scores is not the mean over {attended} tokens, those of rows {[*rows]}"
            )
            raise ValueError(f"{place}: {text}")
        return counts.to(torch.int64)


def probe(view: DiT, setting: Setting, scheduler: Any) -> list[Seen]:
    """What every self-attention of every job of every rank saw, on a view without data; in the order it happened."""
    shape, timesteps = view.shape, scheduler.timesteps
    pictures = -(-len(timesteps) * shape.token_rows // shape.hidden)  # as many as channels are needed
    noise = torch.zeros(pictures, *shape.latent_size)
    seen: list[Seen] = []
    with torch.inference_mode():
        simulate(
            setting,
            lambda rank: HollowView(view.clone(), timesteps, rank, setting, seen),
            lambda rank: scheduler,
            noise,
            Conditioning({}),
        )
    return seen
