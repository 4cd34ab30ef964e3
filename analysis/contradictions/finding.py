"""A finding about the sources themselves."""

from __future__ import annotations

from dataclasses import dataclass

CONTRADICTS, FOLLOWS, UNCHECKED = "contradiction", "follows", "cannot be checked"
UNLIKE = "unlike predicted"
"""Within the sources nothing speaks against it, our prediction does."""


@dataclass(frozen=True)
class Finding:
    """What some published rows say, what they would have to say, by how much they miss it, and how that was found.

    `size` is a share: 0.1 is 10 % off; None where nothing is measured.
    """

    kind: str
    what: str
    rows: tuple[str, ...]
    printed: str
    expected: str
    size: float | None
    how: str
    verdict: str = CONTRADICTS
