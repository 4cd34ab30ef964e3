"""Numbers under the wrong name: Ring for Ulysses, one method's for another's, one figure's labels in another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import mean, median

from analysis.evidence.bounds import contradiction
from analysis.evidence.claim import Claim, Comparison
from analysis.evidence.doubts import same_number
from analysis.evidence.published import CONTRADICTION, READING, WARMUP, Published, alone
from analysis.presentation.columns import percent
from analysis.presentation.style import label

PAIR = ("ring", "ulysses")
SWAPPED, ONE_NUMBER, MISLABELLED = "labels swapped", "one number for two methods", "label that is another's"
Seconds = Mapping[str, float]
"""Row id -> the seconds we predict for it."""
Curve = dict[int, Published]
"""Resolution -> latency."""


def finding(
    kind: str, what: str, rows: Sequence[Published], size: float, how: str, printed: str, expected: str
) -> Claim:
    """That published numbers are those of their label: off by so much, which is more than a contradiction."""
    test = Comparison(1 + size, 1.0, CONTRADICTION)
    return replace(contradiction(kind, what, rows, test, how, printed, expected), size=size)


def swapped(found: Sequence[Published], ours: Seconds) -> Iterator[Claim]:
    """Tables with Ring and Ulysses in the opposite order of the prediction at every size, and nearer to it swapped."""
    sources: dict[str, dict[int | None, dict[str, Published]]] = {}
    for one in found:
        if one.method in PAIR and one.row_id in ours and not one.digitized and not one.oom:
            sources.setdefault(one["source"], {}).setdefault(one.px, {})[one.method] = one
    for source, sizes in sources.items():
        pairs = [(each["ring"], each["ulysses"]) for each in sizes.values() if len(each) == len(PAIR)]
        printed = mean(off(one, ours[one.row_id]) for pair in pairs for one in pair)
        exchanged = mean(off(a, ours[b.row_id]) for pair in pairs for a, b in (pair, pair[::-1]))
        if len(pairs) > 1 and all(opposed(*pair, ours) for pair in pairs) and exchanged < printed:
            first = pairs[0][0]
            yield finding(
                SWAPPED,
                f"Ring and Ulysses on {first.devices} {first.gpu}, {first.link} ({source})",
                [one for pair in pairs for one in pair],
                median(b.value / a.value * ours[a.row_id] / ours[b.row_id] for a, b in pairs) - 1,
                f"in the opposite order at all {len(pairs)} sizes (off by: their ratio over that predicted); "
                f"mean distance in ln to what is predicted {printed:.2f}, swapped {exchanged:.2f}; "
                f"{elsewhere(first, found)}",
                ", ".join(f"Ring {a.value:g}, Ulysses {b.value:g} s" for a, b in pairs),
                "Ulysses the faster: predicted "
                + ", ".join(f"{ours[a.row_id]:.3g}, {ours[b.row_id]:.3g} s" for a, b in pairs),
            )


def opposed(one: Published, other: Published, ours: Seconds) -> bool:
    """Whether two numbers are clearly in one order as published, and in the other as predicted."""
    apart = abs(one.value - other.value) > CONTRADICTION * min(one.value, other.value)
    return apart and (one.value < other.value) != (ours[one.row_id] < ours[other.row_id])


def off(one: Published, predicted: float) -> float:
    """The distance in ratio, the same for half and for double."""
    return abs(math.log(one.value / predicted))


def elsewhere(one: Published, found: Sequence[Published]) -> str:
    """Which of the two is faster in the other sources on this kind of link."""
    places: dict[tuple[object, ...], dict[str, Published]] = {}
    for other in found:
        if other.link == one.link and other["source"] != one["source"] and other.method in PAIR:
            places.setdefault((other["source"], other.task, other.devices), {})[other.method] = other
    faster = [
        each["ulysses"].value < each["ring"].value for each in places.values() if len(each) == len(PAIR)
    ]
    return f"other sources on {one.link} have Ulysses faster in {sum(faster)} of {len(faster)} settings"


def one_number(found: Sequence[Published]) -> Iterator[Claim]:
    """The same seconds of two methods on the same devices."""
    for one, other in combinations(found, 2):
        if same_number(one, other):
            names = " and ".join(f"{label(each.method)} ({each['version']})" for each in (one, other))
            what = f"{names} on {one.devices} {one.gpu}, {one.model}, {one.px} px"
            words = "equal to the last digit", f"{one.value_text} twice", "two numbers"
            made = finding(ONE_NUMBER, what, (one, other), math.nan, *words)
            yield replace(made, test=Comparison(1, 2, unit="numbers"))


def one_curve(found: Sequence[Published]) -> Iterator[Claim]:
    """A method of one figure with another method's numbers of another figure at every size, and not its own there."""
    figures: dict[tuple[object, ...], dict[str, dict[str, Curve]]] = {}
    for one in found:
        plain = not one.compiler and one.warmup in (None, WARMUP) and not one.inferred and not one.oom
        if one.devices != 1 and plain:
            place = figures.setdefault((one.gpu, one.link, one.devices, one.model), {})
            place.setdefault(one["version"], {}).setdefault(one.method, {}).setdefault(one.px or 0, one)
    for versions in figures.values():
        for first, second in combinations(versions.values(), 2):
            for method, mine in first.items():
                for method2, theirs in second.items():
                    if method != method2 and method in second:
                        yield from mistaken(mine, theirs, second[method])


def mistaken(mine: Curve, theirs: Curve, own: Curve) -> Iterator[Claim]:
    """Whether a method's numbers are another method's in another figure, and not those it has there itself."""
    sizes = [size for size in mine if size in theirs and size in own]
    if len(sizes) < 2 or any(theirs[size].digitized for size in sizes):
        return
    near, far = (
        max(abs(curve[size].value / mine[size].value - 1) for size in sizes) for curve in (theirs, own)
    )
    if near <= READING < CONTRADICTION < far:
        one, other = mine[sizes[0]], theirs[sizes[0]]
        names = " and ".join(f"{label(each.method)} ({each['version']})" for each in (one, other))
        yield finding(
            ONE_NUMBER,
            f"{names} on {one.devices} {one.gpu}, {one.model}, {'/'.join(map(str, sizes))} px",
            [curve[size] for size in sizes for curve in (mine, theirs)],
            far,
            f"the two within {percent(near)} at all sizes, the first up to {percent(far)} from its own",
            ", ".join(f"{mine[size].value:g} and {theirs[size].value_text}" for size in sizes),
            f"{', '.join(own[size].value_text for size in sizes)}: {label(one.method)} in {other['version']}",
        )


def copied(found: Sequence[Published]) -> Iterator[Claim]:
    """Labels of a curve far from the curve, with the number of another model's figure."""
    groups: dict[str, list[Published]] = {}
    for one in found:
        printed = re.search(r"printed labels ([\d.]+)", one["setting"])
        if printed:
            groups.setdefault(printed[1], []).append(one)
    for text, curve in groups.items():
        value, first = float(text), curve[0]
        same = [one for one in found if one.value == value and one.gpu == first.gpu and not one.digitized]
        origin = next((one for one in same if one.model != first.model), None)
        distance = abs(value / first.value - 1)
        if origin is not None and distance > CONTRADICTION:
            how = f"{origin.row_id} has the label's number for {origin.model}, {origin.px} px"
            what = f"one {first.gpu}, {first.model}, {first.px} px ({first['source']})"
            words = f"label {value:g} s", f"{first.value_text} by the curve"
            yield finding(MISLABELLED, what, (*curve, origin), distance, how, *words)


def other_gpu(found: Sequence[Published]) -> Iterator[Claim]:
    """Charts whose file names one GPU and whose title another: for which one the other sources have these seconds."""
    for one in found:
        names = re.search(r"file says (\w+), chart title says (?:\d+x)?(\w+)", one["source"])
        if one.devices != 1 or names is None:
            continue
        rest = [other for other in found if other["source"] != one["source"]]
        both = [alone((name.upper(), *one.task[1:]), rest) for name in names.groups()]
        known = [each for each in both if each is not None]
        if len(known) == 2:
            far = [one.value / each.value - 1 for each in known]
            each_said = [
                f"{each.gpu} {each.value_text} ({100 * o:+.1f} %)" for each, o in zip(known, far, strict=True)
            ]
            what = f"one device, {one.model}, {one.px} px ({one['source'].partition(' (')[0]})"
            printed = f"{one.value_text}; {known[0].gpu} in the file's name, {known[1].gpu} in the title"
            expected = min(zip(far, known, strict=True), key=lambda each: abs(each[0]))[1].gpu
            how, size = f"other sources: {', '.join(each_said)}", max(map(abs, far))
            yield finding(MISLABELLED, what, (one, *known), size, how, printed, expected)
