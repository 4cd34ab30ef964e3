"""What stands beside a published number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Beside:
    """Our value (a number, `OOM`, a word, or none), what kind of value it is, what to know of it, and its record."""

    ours: float | str | None
    kind: str
    reason: str = ""
    record: str = ""


def untestable(reason: str) -> Beside:
    """Nothing, and why."""
    return Beside(None, "not testable", reason)
