"""Where two results part, and how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from experiments.conformance.bundle import Bundle
from experiments.difference import SMALLEST, largest_difference
from pipefusion.core.shape import DiTShape


def errors(theirs: Tensor, ours: Tensor) -> list[float]:
    """The error after each step that both have: [S, B, C, H, W], or with only the last one [1, ...].

    Raises NotFinite.
    """
    return [largest_difference(*pair) for pair in zip(theirs, ours[-len(theirs) :], strict=True)]


@dataclass(frozen=True)
class Parting:
    """The first place where results differ. None: not known, or (patch) the whole image."""

    step: int | None
    patch: int | None
    layer: int | None
    error: float | None
    note: str = ""

    def __str__(self) -> str:
        names = ("step", self.step), ("patch", self.patch), ("layer", self.layer)
        where = ", ".join(f"{name} {value}" for name, value in names if value is not None)
        how = self.note or f"by {self.error:.1e}"
        return f"{where or 'the last latents'} ({how})"


def latents_part(
    theirs: Tensor, ours: Tensor, bands: Sequence[range], shape: DiTShape, tolerance: float, whole: int
) -> Parting | None:
    """The first step whose latents differ, and the first patch in it; with last latents only, no step is known."""
    known = len(theirs) == len(ours)
    for step, error in enumerate(errors(theirs, ours)):
        if error <= tolerance:
            continue
        mine = ours[step if known else -1].double()
        apart = (theirs[step].to(mine.device).double() - mine).abs() / mine.abs().max().clamp_min(SMALLEST)
        by_patch = [float(apart[:, :, shape.band_latent(band)].max()) for band in bands]
        first = next(patch for patch, each in enumerate(by_patch) if each > tolerance)
        patched = None if known and step < whole else first  # of a whole image all rows are computed at once
        return Parting(step if known else None, patched, None, by_patch[first])
    return None


def other_kind(step: int, patch: int, layer: int) -> Parting:
    """A hidden state of a step that should have been patch by patch, or of a patch where none should have been."""
    if patch < 0:
        return Parting(step, None, layer, None, "the whole image at once, where it should be patch by patch")
    return Parting(step, patch, layer, None, "patch by patch, where it should be the whole image at once")


class HiddenStates:
    """Compares hidden states while the reference runs, and keeps the first that differ. Raises NotFinite."""

    def __init__(self, bundle: Bundle):
        self.bundle, self.compared = bundle, 0
        self.parting: Parting | None = None
        others = bundle.hidden.other_kind(bundle.request.whole_steps) if bundle.hidden else []
        self.kind = other_kind(*others[0]) if others else None

    def see(self, step: int, patch: int, layer: int, ours: Tensor) -> None:
        """What the reference has at one place."""
        hidden = self.bundle.hidden
        theirs = hidden.read((step, patch, layer)) if hidden and not self.parting else None
        if theirs is None:
            return
        self.compared += 1
        error = largest_difference(theirs, ours)
        if error > self.bundle.tolerance:
            self.parting = Parting(step, None if patch < 0 else patch, layer, error)

    @property
    def first(self) -> Parting | None:
        """The earlier of a state that differs and a step of the other kind."""
        found = [parting for parting in (self.parting, self.kind) if parting]
        return min(found, key=lambda parting: parting.step or 0, default=None)
