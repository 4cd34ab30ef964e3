"""Input temporal redundancy: how much hidden states, K, V and latents change from one step to the next.

The paper's premise (its section 3.2 after DistriFusion): inputs of consecutive steps are alike, so that K, V of the
step before may stand in for this one's. Measured in a run without any staleness: ||x_t - x_{t-1}|| / ||x_t||, by layer
and band of rows (of a video cut over frames, of frames), a mean over pictures and guidance branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from experiments.journal import Row
from experiments.staleness.watch import Attention, relative, row_columns
from pipefusion.core.shape import DiTShape


class Changes:
    """Of hidden states (the inputs of blocks), K and V in a run whose jobs are whole steps, such as serial's.

    `rows`: one a quantity, step from 1 on, layer and band.
    """

    def __init__(self, shape: DiTShape, bands: Sequence[range]):
        self.shape, self.bands = shape, bands
        self.rows: list[Row] = []
        self._before: dict[tuple[str, int], Tensor] = {}

    def watch(self, seen: Attention) -> None:
        """Compare with the step before, of which the image tokens are kept for each layer."""
        place = seen.place
        if place.rows != range(self.shape.lines):
            raise ValueError(f"{place}: only a part of the rows; allowed: a run of whole steps")
        parts = {"hidden": seen.image, "k": seen.k[:, seen.prefix :], "v": seen.v[:, seen.prefix :]}
        for quantity, now in parts.items():
            before = self._before.get((quantity, place.layer))
            self._before[quantity, place.layer] = now
            if before is None:
                continue
            for band in self.bands:
                part = self.shape.band_tokens(band)
                change = relative(before[:, part], now[:, part])
                self._add(quantity, place.step, place.layer, band, change)

    def latents(self, inputs: Tensor) -> None:
        """The model's inputs of all steps, [S, B, C, H, W]: noise first. They have no layer."""
        for step, (before, now) in enumerate(pairwise(inputs), start=1):
            for band in self.bands:
                parts = (self.shape.grid.take_latent(each, band) for each in (before, now))
                self._add("latent", step, None, band, relative(*parts))

    def _add(self, quantity: str, step: int, layer: int | None, band: range, change: float) -> None:
        place = {"quantity": quantity, "step": step, "layer": layer} | row_columns(band)
        self.rows.append(place | {"change": change})
