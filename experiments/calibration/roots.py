"""Several values at once at which as many errors are zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

ITERATIONS, ROUNDS = 40, 30
EXACT = 1e-7
"""An error that is none."""
AT_REST = 1e-4
"""Relative change of a value from one round to the next that is none."""


def solve(
    error: Callable[[int, Sequence[float]], float], ranges: Sequence[tuple[float, float]]
) -> list[float]:
    """Values in their ranges at which every error is zero, or of the sign that the nearer end leaves it.

    `error(index, values)` is monotonous in the value of its index. One value after another is set to where its own
    error is zero (Gauss-Seidel), until none of them moves any more: where that is does not depend on their order.
    Raises ValueError where they do not come to rest.
    """
    values = [(low + high) / 2 for low, high in ranges]
    for _ in range(ROUNDS):
        before = [*values]
        for index, (low, high) in enumerate(ranges):

            def own(value: float, index: int = index) -> float:
                return error(index, [*values[:index], value, *values[index + 1 :]])

            values[index] = root(own, low, high, values[index])
        if all(abs(new - old) <= AT_REST * old for new, old in zip(values, before, strict=True)):
            return values
    raise ValueError(f"the terms still move after {ROUNDS} rounds: from {before} to {values}")


def root(function: Callable[[float], float], low: float, high: float, near: float) -> float:
    """Where a monotonous function is zero, by false position (Illinois), which begins around `near`.

    Where it has one sign between `low` and `high`, the nearer end.
    """
    function = cache(function)
    narrow = max(low, 0.9 * near), min(high, 1.1 * near)
    low, high = narrow if function(narrow[0]) * function(narrow[1]) <= 0 else (low, high)
    at_low, at_high = function(low), function(high)
    if at_low * at_high > 0:
        return low if abs(at_low) < abs(at_high) else high
    value, side = low, 0
    for _ in range(ITERATIONS):
        value = (low * at_high - high * at_low) / (at_high - at_low)
        at_value = function(value)
        if abs(at_value) < EXACT:
            break
        if at_value * at_high > 0:
            high, at_high = value, at_value
            at_low /= 2 if side > 0 else 1
            side = 1
        else:
            low, at_low = value, at_value
            at_high /= 2 if side < 0 else 1
            side = -1
    return value
