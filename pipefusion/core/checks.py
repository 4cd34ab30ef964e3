"""Checks that several methods share. Each returns a `Problem` that names the key and what is allowed, or None."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from pipefusion.core.dit import DiTShape, Problem


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


def divides(devices: int, total: int, what: str) -> Problem | None:
    """`devices` must divide `total`."""
    if devices >= 1 and total % devices == 0:
        return None
    allowed = [str(n) for n in range(1, total + 1) if total % n == 0]
    return Problem("devices", f"{devices} does not divide the {total} {what}; allowed: {', '.join(allowed)}")


def equal_bands(shape: DiTShape, devices: int) -> Problem | None:
    """Sequence-parallel methods give every device the same number of token rows."""
    return divides(devices, shape.token_rows, "token rows")
