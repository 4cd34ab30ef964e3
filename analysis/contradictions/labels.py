"""Numbers under the wrong name: Ring for Ulysses, one method's for another's, one figure's labels in another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import mean, median

from analysis.contradictions.finding import Finding
from analysis.paper.facts import CONTRADICTION, READING, WARMUP, Latency
from analysis.rows import Rows
from analysis.style import label
from analysis.tables import percent

PAIR = ("ring", "ulysses")
SWAPPED, ONE_NUMBER, MISLABELLED = "labels swapped", "one number for two methods", "label that is another's"
Seconds = Mapping[str, float]
"""Row id -> the seconds we predict for it."""
Curve = dict[int, Latency]
"""Resolution -> latency."""


def swapped(found: Sequence[Latency], ours: Seconds) -> Iterator[Finding]:
    """Tables with Ring and Ulysses in the opposite order of the prediction at every size, and nearer to it swapped."""
    sources: dict[str, dict[int, dict[str, Latency]]] = {}
    for one in found:
        if one.method in PAIR and one.row_id in ours and not one.digitized and not one.oom:
            sources.setdefault(one.source, {}).setdefault(one.resolution, {})[one.method] = one
    for source, sizes in sources.items():
        pairs = [(each["ring"], each["ulysses"]) for each in sizes.values() if len(each) == len(PAIR)]
        printed = mean(off(one, ours[one.row_id]) for pair in pairs for one in pair)
        exchanged = mean(off(a, ours[b.row_id]) for pair in pairs for a, b in (pair, pair[::-1]))
        if len(pairs) > 1 and all(opposed(*pair, ours) for pair in pairs) and exchanged < printed:
            first = pairs[0][0]
            yield Finding(
                kind=SWAPPED,
                what=f"Ring and Ulysses on {first.devices} {first.gpu}, {first.link} ({source})",
                rows=tuple(one.row_id for pair in pairs for one in pair),
                printed=", ".join(f"Ring {a.seconds:g}, Ulysses {b.seconds:g} s" for a, b in pairs),
                expected="Ulysses the faster: predicted "
                + ", ".join(f"{ours[a.row_id]:.3g}, {ours[b.row_id]:.3g} s" for a, b in pairs),
                size=median(b.seconds / a.seconds * ours[a.row_id] / ours[b.row_id] for a, b in pairs) - 1,
                how=f"in the opposite order at all {len(pairs)} sizes (off by: their ratio over that predicted); "
                f"mean distance in ln to what is predicted {printed:.2f}, swapped {exchanged:.2f}; "
                f"{elsewhere(first, found)}",
            )


def opposed(one: Latency, other: Latency, ours: Seconds) -> bool:
    """Whether two numbers are clearly in one order as published, and in the other as predicted."""
    apart = abs(one.seconds - other.seconds) > CONTRADICTION * min(one.seconds, other.seconds)
    return apart and (one.seconds < other.seconds) != (ours[one.row_id] < ours[other.row_id])


def off(one: Latency, predicted: float) -> float:
    """The distance in ratio, the same for half and for double."""
    return abs(math.log(one.seconds / predicted))


def elsewhere(one: Latency, found: Sequence[Latency]) -> str:
    """Which of the two is faster in the other sources on this kind of link."""
    places: dict[tuple[object, ...], dict[str, Latency]] = {}
    for other in found:
        if other.link == one.link and other.source != one.source and other.method in PAIR:
            places.setdefault((other.source, other.task, other.devices), {})[other.method] = other
    faster = [
        each["ulysses"].seconds < each["ring"].seconds for each in places.values() if len(each) == len(PAIR)
    ]
    return f"other sources on {one.link} have Ulysses faster in {sum(faster)} of {len(faster)} settings"


def one_number(found: Sequence[Latency]) -> Iterator[Finding]:
    """The same seconds of two methods on the same devices, printed and not read off curves, which cross."""
    for one, other in combinations([one for one in found if not one.digitized and not one.oom], 2):
        same = (one.task, one.devices, one.link, one.seconds) == (
            other.task,
            other.devices,
            other.link,
            other.seconds,
        )
        if same and one.method != other.method:
            names = " and ".join(f"{label(each.method)} ({each.version})" for each in (one, other))
            yield Finding(
                kind=ONE_NUMBER,
                what=f"{names} on {one.devices} {one.gpu}, {one.model}, {one.resolution} px",
                rows=(one.row_id, other.row_id),
                printed=f"{one.said} twice",
                expected="two numbers",
                size=None,
                how="equal to the last digit",
            )


def one_curve(found: Sequence[Latency]) -> Iterator[Finding]:
    """A method of one figure with another method's numbers of another figure at every size, and not its own there."""
    figures: dict[tuple[str, str, int, str], dict[str, dict[str, Curve]]] = {}
    for one in found:
        plain = not one.compiler and one.warmup in (None, WARMUP) and not one.inferred and not one.oom
        if one.devices > 1 and plain:
            place = figures.setdefault((one.gpu, one.link, one.devices, one.model), {})
            place.setdefault(one.version, {}).setdefault(one.method, {}).setdefault(one.resolution, one)
    for versions in figures.values():
        for (name, first), (name2, second) in combinations(versions.items(), 2):
            for method, mine in first.items():
                for method2, theirs in second.items():
                    if method != method2 and method in second:
                        yield from mistaken(mine, theirs, second[method], f"{name}", f"{name2}")


def mistaken(mine: Curve, theirs: Curve, own: Curve, version: str, version2: str) -> Iterator[Finding]:
    """Whether a method's numbers are another method's in another figure, and not those it has there itself."""
    sizes = [size for size in mine if size in theirs and size in own]
    if len(sizes) < 2 or any(theirs[size].digitized for size in sizes):
        return
    near, far = (
        max(abs(curve[size].seconds / mine[size].seconds - 1) for size in sizes) for curve in (theirs, own)
    )
    if near <= READING < CONTRADICTION < far:
        one, other = mine[sizes[0]], theirs[sizes[0]]
        names = f"{label(one.method)} ({version}) and {label(other.method)} ({version2})"
        yield Finding(
            kind=ONE_NUMBER,
            what=f"{names} on {one.devices} {one.gpu}, {one.model}, {'/'.join(map(str, sizes))} px",
            rows=tuple(curve[size].row_id for size in sizes for curve in (mine, theirs)),
            printed=", ".join(f"{mine[size].seconds:g} and {theirs[size].said}" for size in sizes),
            expected=f"{', '.join(own[size].said for size in sizes)}: {label(one.method)} in {version2}",
            size=far,
            how=f"the two within {percent(near)} at all sizes, the first up to {percent(far)} from its own",
        )


def copied(found: Sequence[Latency], rows: Rows) -> Iterator[Finding]:
    """Labels of a curve far from the curve, with the number of another model's figure."""
    groups: dict[str, list[Latency]] = {}
    for one in found:
        printed = re.search(r"printed labels ([\d.]+)", rows[one.row_id]["setting"])
        if printed:
            groups.setdefault(printed[1], []).append(one)
    for text, curve in groups.items():
        value, first = float(text), curve[0]
        same = [one for one in found if one.seconds == value and one.gpu == first.gpu and not one.digitized]
        origin = next((one for one in same if one.model != first.model), None)
        distance = abs(value / first.seconds - 1)
        if origin is not None and distance > CONTRADICTION:
            yield Finding(
                kind=MISLABELLED,
                what=f"one {first.gpu}, {first.model}, {first.resolution} px ({first.source})",
                rows=(*(one.row_id for one in curve), origin.row_id),
                printed=f"label {value:g} s",
                expected=f"{first.said} by the curve",
                size=distance,
                how=f"{origin.row_id} has the label's number for {origin.model}, {origin.resolution} px",
            )
