"""Doubts about published rows: known errors of the sources, values below their own bound, repetitions, contradictions.

Rows are marked, never removed or changed. The same relations between rows make the table of contradictions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.evidence.published import CONTRADICTION, DISPLACED, HYBRID, PRODUCT, Published, alone, least_s

KNOWN = {
    ("ring", "ulysses"): "the table swaps the labels of Ring and Ulysses",
    ("pipefusion",): "the table's PipeFusion row is the hybrid's",
}
"""Errors of the NeurIPS paper's Table 4 that another source shows, by method."""


@dataclass(frozen=True)
class Doubts:
    """Reasons why a row cannot be right, the earlier row that it repeats, and rows with another number."""

    flags: list[str] = field(default_factory=list)
    duplicate_of: str | None = None
    contradicted_by: list[str] = field(default_factory=list)


def doubts(found: Sequence[Published]) -> dict[str, Doubts]:
    """What is doubtful about each of some latencies, beside the others, by row."""
    # Only rows of one task repeat or contradict each other.
    alike: dict[Any, list[Published]] = defaultdict(list)
    for one in found:
        alike[one.task].append(one)
    first: dict[Any, list[Published]] = defaultdict(list)  # printed numbers before those read off curves
    origin: dict[str, str] = {}
    for one in sorted(found, key=lambda one: one.digitized):
        earlier = next((other for other in first[one.task] if repeats(one, other)), None)
        if earlier is None:
            first[one.task].append(one)
        else:
            origin[one.row_id] = earlier.row_id
    return {
        one.row_id: Doubts(
            [*known_errors(one, alike[one.task]), *below_bound(one, alike[one.task])],
            origin.get(one.row_id),
            [other.row_id for other in alike[one.task] if contradicts(one, other)],
        )
        for one in found
    }


def known_errors(one: Published, found: Sequence[Published]) -> Iterator[str]:
    """Errors of a source that another source shows."""
    if "NeurIPS" in one["source"] and "Table 4" in one["source"]:
        yield from (words for methods, words in KNOWN.items() if one.method in methods)
    if one.method == "pipefusion":
        for other in found:
            if other.method == HYBRID and same_number(one, other):
                yield f"{other.row_id} gives the same {one['value']} s for the hybrid"


def same_number(one: Published, other: Published) -> bool:
    """Whether two methods have the same seconds on the same devices, printed and not read off curves, which cross."""
    same = all(
        getattr(one, key) == getattr(other, key) for key in ("task", "devices", "link", "value")
    ) and not math.isinf(one.value)
    return same and one.method != other.method and not (one.digitized or other.digitized)


def bound(one: Published, first: Published) -> tuple[float, str]:
    """The least seconds that a row's own setting allows beside one device's, and how they are computed.

    A synchronous step of PipeFusion runs its stages one after another, in the time t1/S of one device over the
    other axes' degrees; every other step of any method takes 1/N of that.
    """
    assert one.steps is not None and one.devices is not None
    product = one.products[0] if one.method in PRODUCT and one.products else {}
    w = one.synchronous if PRODUCT.get(one.method, one.method) == "pipefusion" else 0
    others = math.prod(product.values())
    least = least_s(first.value, one.steps, w, 1 / one.devices, others)
    share = f"{w}/{others}" if product else f"{w}"
    how = f"{first.value_text} ({first.row_id}) x ({share} + {one.steps - w}/{one.devices})/{one.steps}"
    return least, how


def clearly_less(one: Published, least: float) -> bool:
    """Less than a bound by more than rounding, or reading off a curve, explains."""
    return one.value * (1 + one.tolerance) < least


def below_bound(one: Published, found: Sequence[Published]) -> Iterator[str]:
    """A value that its own setting does not allow, by the shortest time published for one such GPU."""
    first, sure = alone(one.task, found), one.method not in PRODUCT or bool(one.degrees)
    if first is not None and one.devices != 1 and sure and one.products:
        least, how = bound(one, first)
        if clearly_less(one, least):
            yield f"below the bound of its own setting: {one.value_text} < {least:.4g} s = {how}"


def same_setting(one: Published, other: Published) -> bool:
    """The same run in two sources as far as they say, but for M; on one device the links do not matter."""
    keys = ["task", "devices", "link", "method", "products"]
    keys += ["synchronous"] * (PRODUCT.get(one.method, one.method) in DISPLACED)
    return one["source"] != other["source"] and all(getattr(one, key) == getattr(other, key) for key in keys)


def repeats(one: Published, earlier: Published) -> bool:
    """Whether a row of another figure gives the same number for the same setting, M stated in one or in both."""
    if not same_setting(one, earlier) or (one.oom or earlier.oom):
        return same_setting(one, earlier) and one.oom and earlier.oom
    if None not in (one.patches, earlier.patches) and one.patches != earlier.patches:
        return False
    return abs(one.value - earlier.value) <= max(one.tolerance, earlier.tolerance) * earlier.value


def contradicts(one: Published, other: Published) -> bool:
    """Whether another figure has the same setting, M included, with a number more than a tenth away."""
    low, high = sorted((one.value, other.value))
    return same_setting(one, other) and one.patches == other.patches and high > (1 + CONTRADICTION) * low
