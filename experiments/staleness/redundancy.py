"""Input temporal redundancy: how much hidden states, K, V and latents change from one step to the next.

The paper's premise (its section 3.2 after DistriFusion): inputs of consecutive steps are alike, so that K, V of the
step before may stand in for this one's. Measured in a run without any staleness: ||x_t - x_{t-1}|| / ||x_t||, by layer
and band of rows, a mean over pictures and guidance branches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from experiments.staleness.traced import Place
from experiments.staleness.watch import Means, relative
from pipefusion.core.shape import DiTShape

QUANTITIES = ("hidden", "k", "v", "latent")
"""What changes: the input of a block, its K and V, the model's input (which has no layer)."""


class Changes:
    """Watches a run in which each job is a whole step, such as serial's. Keeps the step before, for each layer."""

    def __init__(self, shape: DiTShape, bands: Sequence[range]):
        self.shape, self.bands = shape, bands
        self._before: dict[tuple[str, int], Tensor] = {}
        self._means = Means()

    def entered(self, place: Place, image: Tensor) -> None:
        self._see("hidden", place, image)

    def attended(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor, prefix: int) -> None:
        self._see("k", place, k[:, prefix:])
        self._see("v", place, v[:, prefix:])

    def _see(self, what: str, place: Place, now: Tensor) -> None:
        """Image tokens now [b, p, ...]."""
        if place.rows != range(self.shape.token_rows):
            raise ValueError(f"{place}: only a part of the rows; allowed: a run of whole steps")
        before = self._before.get((what, place.layer))
        self._before[what, place.layer] = now
        if before is not None:
            for band in self.bands:
                part = self.shape.band_tokens(band)
                self._means.add(
                    (what, place.step, place.layer, band), relative(before[:, part], now[:, part])
                )

    def latents(self, inputs: Tensor) -> None:
        """The model's inputs of all steps, [S, B, C, H, W]: noise first."""
        for step, (before, now) in enumerate(pairwise(inputs), start=1):
            for band in self.bands:
                part = self.shape.band_latent(band)
                key = ("latent", step, None, band)
                self._means.add(key, relative(before[:, :, part], now[:, :, part]))

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row a quantity, step from 1 on, layer and band."""
        for (what, step, layer, band), change in self._means.items():
            assert isinstance(band, range)
            place = {"step": step, "layer": layer, "row_start": band.start, "row_stop": band.stop}
            yield {"quantity": what, **place, "change": change}
