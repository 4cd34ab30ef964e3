"""Contradictions of the published rows: of each other, their own settings, the text about them. All by computation.

A contradiction is a claim on published rows that they do not confirm. No finding is typed in. The thresholds are those
of `published`: for rounding, for reading off a curve, for a contradiction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from analysis.evidence import bounds, labels, text
from analysis.evidence.bounds import contradiction, on, refuted
from analysis.evidence.claim import Claim, Comparison
from analysis.evidence.doubts import same_setting
from analysis.evidence.published import (
    CONTRADICTION,
    HYBRID,
    PRODUCT,
    TABLE1,
    Published,
    Rows,
    alone,
    latencies,
    read_row,
)  # fmt: skip
from analysis.evidence.records import MODEL, Evidence
from analysis.memory.accounting import DEVICES
from analysis.memory.table1 import COLUMNS, COSTS, NOTHING, Units, parse_formula

TWO_NUMBERS, IMPOSSIBLE = "two numbers for one setting", "impossible setting"
SLOWER, VERSIONS = "slower with more devices", "versions of Table 1"
KINDS = [
    bounds.BOUND,
    bounds.UNCUT,
    bounds.LINEAR,
    bounds.CONVENTION,
    labels.SWAPPED,
    labels.ONE_NUMBER,
    TWO_NUMBERS,
]
KINDS += [labels.MISLABELLED, IMPOSSIBLE, SLOWER, bounds.MEMORY, text.TEXT, VERSIONS]


def contradictions(evidence: Evidence) -> Iterator[Claim]:
    """All that are found, and of the text's ratios and the synchronous steps also what follows."""
    rows, found = evidence.rows, latencies(evidence.rows)
    layers = {name: int(facts["layers"]) for name, facts in evidence.accounts["models"].items()}
    ours = {row_id: one["predicted_s"] for row_id, one in evidence.made.items() if one["status"] == "ok"}
    yield from refuted([*bounds.latencies(found, layers), *bounds.of_text(found, rows)])
    yield from bounds.synchronous_steps(found, layers)
    yield from labels.swapped(found, ours)
    yield from [*labels.one_number(found), *labels.one_curve(found)]
    yield from refuted(two_numbers(found))
    yield from [*labels.copied(found), *labels.other_gpu(found)]
    yield from [*too_many_devices(found), *other_steps(found, rows)]
    yield from slower(found, ours)
    yield from refuted([*bounds.mixed_types(rows), *bounds.too_little(rows), *bounds.opposite_signs(rows)])
    yield from [*text.published(found, rows), *text.shares(rows)]
    yield from versions(rows, layers[MODEL])


def two_numbers(found: Sequence[Published]) -> Iterator[Claim]:
    """One setting, as far as the sources say, with numbers in two figures more than a tenth apart."""
    for one, other in combinations([one for one in found if not one.oom and one.method not in PRODUCT], 2):
        low, high = sorted((one, other), key=lambda each: each.value)
        if same_setting(one, other) and one.patches == other.patches:
            versions = " and ".join(dict.fromkeys((one["version"], other["version"])))
            how = "larger over smaller"
            how += ", one read off a curve" if one.digitized or other.digitized else ""
            first = alone(one.task, found)
            if first is not None and one.devices != 1 and high.value > first.value:
                how += (
                    f"; {high.value_text} is more than one device takes: {first.value_text} ({first.row_id})"
                )
            test = Comparison(high.value, low.value, CONTRADICTION * low.value, "s")
            what, printed = f"{on(one)} ({versions})", f"{one.value_text}, {other.value_text}"
            yield contradiction(TWO_NUMBERS, what, (one, other), test, how, printed, "one number")


def too_many_devices(found: Sequence[Published]) -> Iterator[Claim]:
    """Degrees of parallelism whose product is more than the devices there are."""
    for one in found:
        printed = re.sub(r" *\[.*?\]", "", one["setting"])  # without remarks
        degrees = re.findall(r"\b(?:cfg|pp|ulysses|ring)=(\d+)", printed)
        needed, n = math.prod(map(int, degrees)), one.devices or 1
        kin = [each for each in found if each.method == HYBRID and each.devices == needed]
        twins = [each for each in kin if (each.task, each.value) == (one.task, one.value)]
        also = "".join(f"; {each.row_id} has {each.value_text} for the hybrid on {needed}" for each in twins)
        what = f"{printed} on {n} {one.gpu}, {one.model}, {one.px} px"
        if needed > n:
            how, test = f"{' x '.join(degrees)} = {needed}{also}", Comparison(needed, n, unit="devices")
            words = f"{n} devices, {one.value_text}", f"{needed} devices"
            yield contradiction(IMPOSSIBLE, what, (one, *twins), test, how, *words)


def other_steps(found: Sequence[Published], rows: Rows) -> Iterator[Claim]:
    """A number of steps in doubt (`20[sic; likely 50]`): which one makes this GPU to another what it is on PixArt."""
    for row_id, row in rows.items():
        printed, _, doubt = row["steps"].partition("[")
        likely = re.search(r"\d+", doubt)
        if row["metric"] != "latency" or likely is None:
            continue
        read = [read_row(row_id, {**row.printed, "steps": steps}) for steps in (printed, likely[0])]
        one = read[0]
        for other in found:
            alike = [(each.task[1:3], each.devices, each.compiler) for each in (one, other)]
            expected = gpu_ratio(one, other, found)
            if alike[0] != alike[1] or expected is None or other.steps is None:
                continue
            ratios = [each.value / (each.steps or 1) / (other.value / other.steps) for each in read]
            off = [abs(each / expected - 1) for each in ratios]
            if off[0] > CONTRADICTION > off[1]:
                what = f"one {one.gpu}, {one.model}, {one.px} px, {one.compiler or 'eager'}"
                how = f"seconds a step over those of one {other.gpu}: {ratios[0]:.2f} with {printed} steps, "
                how += f"{ratios[1]:.2f} with {likely[0]}; on PixArt {expected:.2f}"
                test = Comparison(ratios[0], expected, CONTRADICTION * expected)
                words = f"{one.value_text} for {printed} steps", f"{likely[0]} steps"
                yield contradiction(IMPOSSIBLE, what, (one, other), test, how, *words)


def gpu_ratio(one: Published, other: Published, found: Sequence[Published]) -> float | None:
    """The shortest seconds of PixArt on one GPU over those on another, of the same size."""
    ones = [
        each for each in found if (each.devices, each.model, each.compiler, each.px) == (1, MODEL, "", one.px)
    ]
    firsts = [[each.value for each in ones if each.gpu == gpu] for gpu in (one.gpu, other.gpu)]
    return min(firsts[0]) / min(firsts[1]) if all(firsts) and one.gpu != other.gpu else None


def slower(found: Sequence[Published], ours: dict[str, float]) -> Iterator[Claim]:
    """One source, one method: more devices clearly slower as published and clearly faster as predicted."""
    seen: set[str] = set()  # figures repeat each other's numbers
    for pair in combinations([one for one in found if one.row_id in ours and not one.oom], 2):
        few, many = sorted(pair, key=lambda each: each.devices or 0)
        alike = few.method == "serial" or (few.method, few.patches) == (many.method, many.patches)
        same = (few["source"], few.task) == (many["source"], many.task)
        if not same or few.devices == many.devices or not alike:
            continue
        printed, predicted = many.value / few.value, ours[few.row_id] / ours[many.row_id]
        what = on(many, f"{few.devices} and {many.devices}")
        if min(printed, predicted) > 1 + CONTRADICTION and what not in seen:
            seen.add(what)
            expected = f"{ours[few.row_id]:.3g} s, {ours[many.row_id]:.3g} s (predicted)"
            how = "more than a tenth slower with more devices, and predicted to be more than a tenth faster"
            test = Comparison(printed, None, relation="less", bound=1.0)
            made = contradiction(
                SLOWER, what, (few, many), test, how, f"{few.value_text}, {many.value_text}", expected
            )
            yield replace(made, kind="predicted")


def versions(rows: Rows, layers: int) -> Iterator[Claim]:
    """Cells of Table 1 for which its versions print different formulas; in numbers for a model of so many layers."""
    units = Units(a=1.0, p=1.0, layers=layers, n=DEVICES, m=DEVICES)
    cells: dict[tuple[str, str], dict[str, list[Published]]] = {}
    for row in (row for row_id, row in rows.items() if row_id.startswith(TABLE1)):
        for column in COLUMNS:
            # `(2/N)A=KV/N` says one thing twice; `yes*` and `stale-` are words with a footnote.
            cell = row[column].rpartition("=")[2].strip("*- ")
            if cell not in NOTHING:
                cells.setdefault((row["method"], column), {}).setdefault(cell, []).append(row)
    for (method, column), texts in cells.items():
        if len(texts) > 1:
            costs = [COSTS[cell](units) for cell in texts if parse_formula(cell)]
            known = len(costs) > 1 and min(costs) > 0
            how = f"largest over smallest with A = p*hs, N=M={DEVICES}, L={layers}"
            how = how if known else "no ratio: one is 0, or no formula"
            named = {cell: ", ".join(row["version"] for row in each) for cell, each in texts.items()}
            printed = "; ".join(f"{cell} ({versions})" for cell, versions in named.items())
            each = [row for part in texts.values() for row in part]
            what, test = f"{method}, {column.replace('_', ' ')}", Comparison(len(texts), 1, unit="formulas")
            size = max(costs) / min(costs) - 1 if known else math.nan
            yield replace(contradiction(VERSIONS, what, each, test, how, printed, "one formula"), size=size)
