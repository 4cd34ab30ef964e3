"""A DiT view that shows a watcher what enters every block and every self-attention, and what comes back."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from experiments.difference import norm_of_difference
from experiments.staleness.traced import Place, TracedView
from pipefusion.core.attention import Attend
from pipefusion.core.dit import DiT, Given, Tokens


class Watcher(Protocol):
    """What is told of a run. It must not change the tensors, and may keep them: nobody writes to them again."""

    def entered(self, place: Place, image: Tensor) -> None:
        """Image tokens [b, t, hs] that a block is given."""
        ...

    def attended(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor, prefix: int) -> None:
        """q, k, v [b, T + t, H, d] as the method was given them, and what its attention made of them, like q."""
        ...


class WatchedView(TracedView):
    """The inner view, with a watcher. The method computes and communicates as without."""

    def __init__(self, inner: DiT, timesteps: Tensor, rank: int, watcher: Watcher):
        super().__init__(inner, timesteps, rank)
        self.watcher = watcher

    def at_block(
        self, place: Place, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None
    ) -> Tokens:
        # Copies of what may lie in a communication buffer: a stage's first input, a method's result.
        self.watcher.entered(place, tokens.image.clone())

        def watched(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            out = attend(layer, q, k, v, prefix)
            self.watcher.attended(place, q, k, v, out.clone(), prefix)
            return out

        return super().at_block(place, tokens, given, watched, skip)


class Means:
    """Values by key, each of one picture in one guidance branch; their mean over all that were added."""

    def __init__(self) -> None:
        self._values: dict[tuple[object, ...], list[Tensor]] = {}

    def add(self, key: tuple[object, ...], values: Tensor) -> None:
        """Values [b]."""
        self._values.setdefault(key, []).append(values)

    def items(self) -> list[tuple[tuple[object, ...], float]]:
        """Key and mean, in the order of first arrival."""
        return [(key, float(torch.cat(parts).mean())) for key, parts in self._values.items()]


def relative(got: Tensor, want: Tensor) -> Tensor:
    """||got - want|| / ||want|| of each picture and branch: [b, ...] twice -> [b]. Raises NotFinite."""
    return norm_of_difference(got, want)
