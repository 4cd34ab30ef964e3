"""A few of many, evenly spaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spaced(whole: Sequence[T], count: int) -> list[T]:
    """`count` of them, or all if there are fewer, evenly spaced."""
    count = min(count, len(whole))
    return [whole[(2 * k + 1) * len(whole) // (2 * count)] for k in range(count)]
