"""A DiT view that knows, at every block, which step and which rows it is computing. Methods do not know of it.

`modulation` depends on the step and `positions` on the rows, and a method hands what they return to every block
(`Given`): both come back marked with what they were made for, and the marks are taken off again inside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.dit import DiT, Given, Tokens
from pipefusion.core.grid import Band


class Place(NamedTuple):
    """One block of one job: rank, step, the token rows that are computed, layer."""

    rank: int
    step: int
    rows: Band
    layer: int


class Marked(NamedTuple):
    """What a view made, and the step or the rows that it was made for."""

    mark: Any
    value: Any


def unmarked(given: Given) -> Given:
    """What the inner view is given."""
    return given._replace(modulation=given.modulation.value, positions=given.positions.value)


class TracedView:
    """Everything is the inner view's; `at_block` is `block` with its `Place`.

    Raises ValueError when two of the `timesteps` [S] are equal: a step could not be known by its timestep.
    """

    def __init__(self, inner: DiT, timesteps: Tensor, rank: int):
        self.inner, self.rank = inner, rank
        self.steps = {float(timestep): step for step, timestep in enumerate(timesteps)}
        if len(self.steps) < len(timesteps):
            raise ValueError(f"timesteps repeat: {timesteps.tolist()}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def modulation(self, timestep: Tensor, text: Any, batch: int) -> Marked:
        return Marked(self.steps[float(timestep)], self.inner.modulation(timestep, text, batch))

    def positions(self, rows: Band, prompt: range) -> Marked:
        return Marked(rows, self.inner.positions(rows, prompt))

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        place = Place(self.rank, given.modulation.mark, given.positions.mark, layer)
        return self.at_block(place, tokens, unmarked(given), attend, skip)

    def at_block(
        self, place: Place, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None
    ) -> Tokens:
        """A block, with the `given` of the inner view."""
        return self.inner.block(place.layer, tokens, given, attend, skip)

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        return self.inner.modulated(tokens, unmarked(given))

    def unembed(self, image: Tensor, modulation: Marked, rows: Band) -> Tensor:
        return self.inner.unembed(image, modulation.value, rows)
