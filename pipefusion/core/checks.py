"""Checks that several methods share. Each returns a `Problem` that names the key and what is allowed, or None."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from pipefusion.core.dit import Problem
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import SPLITS, Split


def within(key: str, value: int, low: int, high: int, what: str) -> Problem | None:
    """`value` must lie in low..high, where `what` says what the upper bound is."""
    if low <= value <= high:
        return None
    return Problem(key, f"{value} is outside {low}..{high} ({high}: {what}); allowed: {low}..{high}")


def one_of(key: str, value: str, allowed: Sequence[str]) -> Problem | None:
    """`value` must be one of `allowed`."""
    if value in allowed:
        return None
    near = get_close_matches(value, allowed, n=1)
    return Problem(
        key, f"{value!r} is unknown{f', nearest: {near[0]}' if near else ''}; allowed: {', '.join(allowed)}"
    )


def splits(split: Split, layers: int, devices: int) -> Problem | None:
    """`method.split`: a name, or the layers of each stage, as many as devices and none left over."""
    if isinstance(split, str):
        return one_of("method.split", split, (*SPLITS, "a list of layers a stage"))
    if (
        len(split) == devices
        and sum(split) == layers
        and all(isinstance(size, int) and size >= 0 for size in split)
    ):
        return None
    given = ",".join(map(str, split))
    text = f"[{given}] does not cut {layers} layers into {devices} stages"
    return Problem(
        "method.split", f"{text}; allowed: {', '.join(SPLITS)}, or {devices} numbers of sum {layers}"
    )


def divides(devices: int, total: int, what: str) -> Problem | None:
    """`devices` must divide `total`."""
    if devices >= 1 and total % devices == 0:
        return None
    allowed = [str(n) for n in range(1, total + 1) if total % n == 0]
    return Problem("devices", f"{devices} does not divide the {total} {what}; allowed: {', '.join(allowed)}")


def equal_bands(shape: DiTShape, devices: int) -> Problem | None:
    """Sequence-parallel methods give every device the same number of token rows."""
    return divides(devices, shape.token_rows, "token rows")
