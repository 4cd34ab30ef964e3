"""Settings with two numbers, or that cannot be as printed: too many devices, other steps, another GPU."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from analysis.contradictions.bounds import alone
from analysis.contradictions.finding import UNLIKE, Finding
from analysis.contradictions.labels import MISLABELLED
from analysis.paper.facts import CONTRADICTION, HYBRID, USP, WARMUP, Latency, latency_of
from analysis.rows import Rows
from analysis.style import label

TWO_NUMBERS, IMPOSSIBLE, SLOWER = (
    "two numbers for one setting",
    "impossible setting",
    "slower with more devices",
)
PIXART = "pixart_alpha"
"""The model that most GPUs have seconds of: what one GPU is to another is read off it."""


def two_numbers(found: Sequence[Latency]) -> Iterator[Finding]:
    """One setting, as far as the sources say, with numbers in two figures more than a tenth apart."""
    for one, other in combinations([one for one in found if not one.oom], 2):
        low, high = sorted((one, other), key=lambda each: each.seconds)
        same = one.source != other.source and setting(one) == setting(other)
        if same and one.method not in (HYBRID, USP) and high.seconds > (1 + CONTRADICTION) * low.seconds:
            versions = " and ".join(dict.fromkeys((one.version, other.version)))
            what = f"{label(one.method)} on {one.devices} {one.gpu}, {one.model}, {one.resolution} px ({versions})"
            how = "larger over smaller" + (
                ", one read off a curve" if one.digitized or other.digitized else ""
            )
            first = alone(one.task, found)
            if first is not None and one.devices > 1 and high.seconds > first.seconds:
                how += f"; {high.said} is more than one device takes: {first.said} ({first.row_id})"
            size = high.seconds / low.seconds - 1
            printed = f"{one.said}, {other.said}"
            yield Finding(TWO_NUMBERS, what, (one.row_id, other.row_id), printed, "one number", size, how)


def setting(one: Latency) -> tuple[object, ...]:
    """All that the sources say of a run; W = 1 where they do not, the paper's default."""
    w = WARMUP if one.warmup is None else one.warmup
    return (*one.task, one.link, one.devices, one.method, w, one.patches)


def too_many_devices(found: Sequence[Latency], rows: Rows) -> Iterator[Finding]:
    """Degrees of parallelism whose product is more than the devices there are."""
    for one in found:
        printed = re.sub(r" *\[.*?\]", "", rows[one.row_id]["setting"])  # without remarks
        degrees = re.findall(r"\b(?:cfg|pp|ulysses|ring)=(\d+)", printed)
        needed = math.prod(map(int, degrees))
        if needed > one.devices:
            kin = [each for each in found if each.method == HYBRID and each.devices == needed]
            twins = [each for each in kin if (each.task, each.seconds) == (one.task, one.seconds)]
            also = [f"; {each.row_id} has {each.said} for the hybrid on {needed}" for each in twins]
            yield Finding(
                kind=IMPOSSIBLE,
                what=f"{printed} on {one.devices} {one.gpu}, {one.model}, {one.resolution} px",
                rows=(one.row_id, *(each.row_id for each in twins)),
                printed=f"{one.devices} devices, {one.said}",
                expected=f"{needed} devices",
                size=needed / one.devices - 1,
                how=f"{' x '.join(degrees)} = {needed}{''.join(also)}",
            )


def other_steps(found: Sequence[Latency], rows: Rows) -> Iterator[Finding]:
    """A number of steps in doubt (`20[sic; likely 50]`): which one makes this GPU to another what it is on PixArt."""
    for row_id, row in rows.items():
        printed, _, doubt = row.get("steps", "").partition("[")
        likely = re.search(r"\d+", doubt)
        if row.get("metric") != "latency" or likely is None:
            continue
        one = latency_of(row_id, {**row, "steps": printed})
        read = [one, replace(one, steps=int(likely[0]))]
        for other in found:
            same = all(
                getattr(one, key) == getattr(other, key)
                for key in ("model", "resolution", "devices", "compiler")
            )
            expected = gpu_ratio(one, other, found)
            if not same or expected is None:
                continue
            ratios = [each.seconds / each.steps / (other.seconds / other.steps) for each in read]
            off = [abs(ratio / expected - 1) for ratio in ratios]
            if off[0] > CONTRADICTION > off[1]:
                yield Finding(
                    kind=IMPOSSIBLE,
                    what=f"one {one.gpu}, {one.model}, {one.resolution} px, {one.compiler or 'eager'}",
                    rows=(row_id, other.row_id),
                    printed=f"{one.said} for {printed} steps",
                    expected=f"{likely[0]} steps",
                    size=off[0],
                    how=f"seconds a step over those of one {other.gpu}: {ratios[0]:.2f} with {printed} steps, "
                    f"{ratios[1]:.2f} with {likely[0]}; on PixArt {expected:.2f}",
                )


def gpu_ratio(one: Latency, other: Latency, found: Sequence[Latency]) -> float | None:
    """The shortest seconds of PixArt on one GPU over those on another, of the same size."""
    firsts = [
        min(
            (each.seconds for each in found if each.devices == 1 and each.model == PIXART and not each.compiler
             and (each.gpu, each.resolution) == (gpu, one.resolution)),
            default=None,
        )
        for gpu in (one.gpu, other.gpu)
    ]  # fmt: skip
    known = [first for first in firsts if first is not None]
    return known[0] / known[1] if len(known) == 2 and one.gpu != other.gpu else None


def other_gpu(found: Sequence[Latency]) -> Iterator[Finding]:
    """Charts whose file names one GPU and whose title another: for which one the other sources have these seconds."""
    for one in found:
        names = re.search(r"file says (\w+), chart title says (?:\d+x)?(\w+)", one.source)
        if one.devices > 1 or names is None:
            continue
        rest = [other for other in found if other.source != one.source]
        both = [alone((name.upper(), *one.task[1:]), rest) for name in names.groups()]
        known = [each for each in both if each is not None]
        if len(known) == 2:
            off = [one.seconds / each.seconds - 1 for each in known]
            said = [f"{each.gpu} {each.said} ({100 * o:+.1f} %)" for each, o in zip(known, off, strict=True)]
            yield Finding(
                kind=MISLABELLED,
                what=f"one device, {one.model}, {one.resolution} px ({one.source.partition(' (')[0]})",
                rows=(one.row_id, *(each.row_id for each in known)),
                printed=f"{one.said}; {known[0].gpu} in the file's name, {known[1].gpu} in the title",
                expected=min(zip(off, known, strict=True), key=lambda each: abs(each[0]))[1].gpu,
                size=max(map(abs, off)),
                how=f"other sources: {', '.join(said)}",
            )


def slower(found: Sequence[Latency], ours: Mapping[str, float]) -> Iterator[Finding]:
    """One source, one method: more devices clearly slower as published and clearly faster as predicted."""
    told: set[str] = set()  # figures repeat each other's numbers
    for one, other in combinations([one for one in found if one.row_id in ours and not one.oom], 2):
        few, many = sorted((one, other), key=lambda each: each.devices)
        alike = few.method == "serial" or (few.method, few.patches) == (many.method, many.patches)
        if one.source != other.source or one.task != other.task or few.devices == many.devices or not alike:
            continue
        printed, predicted = many.seconds / few.seconds, ours[few.row_id] / ours[many.row_id]
        what = f"{label(many.method)} on {few.devices} and {many.devices} {many.gpu}, {many.model}, "
        what += f"{many.resolution} px"
        if min(printed, predicted) > 1 + CONTRADICTION and what not in told:
            told.add(what)
            yield Finding(
                kind=SLOWER,
                what=what,
                rows=(few.row_id, many.row_id),
                printed=f"{few.said}, {many.said}",
                expected=f"{ours[few.row_id]:.3g} s, {ours[many.row_id]:.3g} s (predicted)",
                size=printed - 1,
                how="more than a tenth slower with more devices, and predicted to be more than a tenth faster",
                verdict=UNLIKE,
            )
