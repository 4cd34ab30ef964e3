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
from statistics import median

from analysis.accounting import DEVICES
from analysis.evidence.claim import NOT_CONFIRMED, Claim, Comparison, verdict
from analysis.evidence.doubts import bound, same_setting
from analysis.evidence.labels import (
    MISLABELLED,
    ONE_NUMBER,
    SWAPPED,
    copied,
    one_curve,
    one_number,
    other_gpu,
    swapped,
)
from analysis.evidence.memory import GB, GIB
from analysis.evidence.published import (
    CONTRADICTION,
    HYBRID,
    METHODS,
    PRODUCT,
    ROUNDING,
    SP,
    TABLE1,
    WARMUP,
    Published,
    Rows,
    alone,
    latencies,
    least_s,
    read_row,
)
from analysis.evidence.records import MODEL, Evidence
from analysis.evidence.text import TEXT, ratio, shares
from analysis.evidence.text import published as of_text
from analysis.style import label
from analysis.table1 import COLUMNS, COSTS, NOTHING, Units, formula_of
from analysis.tables import percent

BOUND, UNCUT, LINEAR = (
    "below its own bound",
    "below the bound of whole layers",
    "more than N times one device",
)
CONVENTION, TWO_NUMBERS, IMPOSSIBLE = (
    "number of synchronous steps",
    "two numbers for one setting",
    "impossible setting",
)
SLOWER, MEMORY, VERSIONS = "slower with more devices", "memory", "versions of Table 1"
KINDS = [
    BOUND,
    UNCUT,
    LINEAR,
    CONVENTION,
    SWAPPED,
    ONE_NUMBER,
    TWO_NUMBERS,
    MISLABELLED,
    IMPOSSIBLE,
    SLOWER,
    MEMORY,
]
KINDS += [TEXT, VERSIONS]
BEYOND = 2
"""Up to how many synchronous steps more than are named are tried."""
Layers = dict[str, int]
"""Model -> layers."""


def contradictions(evidence: Evidence) -> Iterator[Claim]:
    """All that are found, and of the text's ratios and the synchronous steps also what follows."""
    rows, found = evidence.rows, latencies(evidence.rows)
    layers = {name: int(facts["layers"]) for name, facts in evidence.accounts["models"].items()}
    ours = {row_id: one["predicted_s"] for row_id, one in evidence.made.items() if one["status"] == "ok"}
    yield from refuted(bounds(found, layers))
    yield from refuted(text_bounds(found, rows))
    yield from synchronous_steps(found, layers)
    yield from swapped(found, ours)
    yield from one_number(found)
    yield from one_curve(found)
    yield from two_numbers(found)
    yield from copied(found)
    yield from other_gpu(found)
    yield from too_many_devices(found)
    yield from other_steps(found, rows)
    yield from slower(found, ours)
    yield from refuted([*mixed_types(rows), *too_little(rows), *opposite_signs(rows)])
    yield from of_text(found, rows)
    yield from shares(rows)
    yield from versions(rows, layers[MODEL])


def refuted(claims: Iterator[Claim] | Sequence[Claim]) -> Iterator[Claim]:
    """Of these the ones that do not hold."""
    yield from (one for one in claims if verdict(one.test) == NOT_CONFIRMED)


def bounds(found: Sequence[Published], layers: Layers) -> Iterator[Claim]:
    """Latencies beside the least that their own setting, whole layers, and N devices allow."""
    for one in found:
        first = alone(one.task, found)
        if one.devices == 1 or first is None:
            continue
        assert one.devices is not None and one.steps is not None
        if one.method == "pipefusion" or (one.method == HYBRID and one.degrees and one.products):
            least, how = bound(one, first)
            how += "" if one.warmup is not None else f", W={WARMUP} being the paper's default"
            yield at_least(BOUND, one, least, how + compiled(one, found))
        if one.method == "pipefusion":
            count = layers[one.model]
            most = math.ceil(count / one.devices)
            how = f"even with W=0: {first.said} ({first.row_id}) x {most}/{count}, as of {count} layers on "
            how += f"{one.devices} devices one has {most}; what is outside of the layers is neglected"
            yield at_least(UNCUT, one, least_s(first.value, one.steps, 0, most / count), how)
        how = f"{first.said} ({first.row_id}) / {one.devices}; needs pieces that run faster than the whole"
        yield at_least(LINEAR, one, first.value / one.devices, how)


def at_least(kind: str, one: Published, least: float, how: str) -> Claim:
    """That a latency is no less than it can be, but for rounding or reading off a curve."""
    test = Comparison(one.value, None, 0.0, "s", "more", least, one.value, one.value * (1 + one.tolerance))
    return said(kind, on(one), (one,), test, how, one.said, f"at least {least:.4g} s")


def on(one: Published, devices: str = "") -> str:
    return f"{label(one.method)} on {devices or one.devices} {one.gpu}, {one.model}, {one.px} px"


def said(
    kind: str, what: str, rows: Sequence[Published], test: Comparison, how: str, printed: str, expected: str
) -> Claim:
    """A claim on published rows, in their own words and in what the rest gives."""
    sources = tuple(row.row_id for row in rows)
    return Claim(kind, what, sources, "published", (), test, how, printed=printed, expected=expected)


def compiled(one: Published, found: Sequence[Published]) -> str:
    """What the bound would be by the shortest time of compiled code."""
    first = alone((*one.task[:-1], "torch.compile"), found)
    if first is None:
        return ""
    return f"; from compiled code's {first.said} ({first.row_id}) {bound(one, first)[0]:.4g} s"


def text_bounds(found: Sequence[Published], rows: Rows) -> Iterator[Claim]:
    """Speedups of the text over one device, at most N; PipeFusion's communication, at least what W = 1 loses."""
    for row in (row for row_id, row in rows.items() if row_id.startswith("claims.csv") and row.px):
        first, n = alone(row.task, found), row.devices or 1
        if row["metric"] == "speedup" and "1 GPU" in row["setting"]:
            test = Comparison(row.value, None, 0.0, "x", "less", n, row.value / (1 + ROUNDING), row.value)
            what = f"{row['method']} on {n} {row.gpu}, {row['model']}, {row['resolution']} px"
            how = "the text's speedup over N; needs pieces that run faster than the whole"
            yield said(LINEAR, what, (row,), test, how, f"{row.value:g} x", f"at most {n} x")
        elif row["metric"] == "communication cost" and row.method == "pipefusion" and first is not None:
            least = ratio(row, least_s(first.value, row.steps or 1, WARMUP, 1 / n), first.value)
            test = Comparison(row.value, None, 0.0, "s", "more", least, row.value, row.value * (1 + ROUNDING))
            what = f"{row['setting']} of PipeFusion, {row.model}, {row.px} px"
            how = f"W={WARMUP}: a synchronous step takes {first.said} ({first.row_id}) / {row.steps} on any N, and "
            how += f"what is beyond 1/{n} of it is counted"
            yield said(BOUND, what, (row, first), test, how, row.said, f"at least {least:.4g} s")


def synchronous_steps(found: Sequence[Published], layers: Layers) -> Iterator[Claim]:
    """W against W + 1: which number of synchronous steps explains each version's PipeFusion best.

    By T = t1 (w + (S - w) ceil(L/N) / L) / S; a single size tells nothing.
    """
    groups: dict[tuple[str, str, int, int], dict[int, Published]] = {}
    for one in found:
        n, px = one.devices or 1, one.px or 0
        filled = (one.patches or n) >= n  # with fewer patches, stages idle in every step
        if one.method == "pipefusion" and one.warmup is not None and filled and not one.oom:
            sizes = groups.setdefault((one["version"], one.gpu, n, one.warmup), {})
            best = sizes.setdefault(px, one)
            if one.value < best.value:  # the fastest M, as the sources searched too
                sizes[px] = one
    for (version, gpu, n, named), sizes in groups.items():
        if len(sizes) > 1:
            points = list(sizes.values())
            errors = {
                w: [step_error(one, w, found, layers) for one in points] for w in range(named + BEYOND + 1)
            }
            off = {w: median(map(abs, each)) for w, each in errors.items()}
            best = min(off, key=lambda w: off[w])
            listed = [f"{w}: {', '.join(f'{100 * each:+.0f} %' for each in errors[w])}" for w in errors]
            what = f"PipeFusion on {n} {gpu}, W={named}, {'/'.join(map(str, sizes))} px ({version})"
            printed = f"W={named}: {', '.join(one.said for one in points)}"
            how = f"t1 (w + (S - w) ceil(L/N)/L) / S over published, by w: {'; '.join(listed)}"
            expected = f"w={best}, median error {percent(off[best])}"
            one = said(
                CONVENTION, what, points, Comparison(best, named, unit="steps"), how, printed, expected
            )
            yield replace(one, size=off[named])


def step_error(one: Published, w: int, found: Sequence[Published], layers: Layers) -> float:
    """How far w synchronous steps, and the slowest stage for the others, are off a published latency."""
    first, count = alone(one.task, found), layers[one.model]
    assert first is not None and one.devices is not None and one.steps is not None, one
    return least_s(first.value, one.steps, w, math.ceil(count / one.devices) / count) / one.value - 1


def two_numbers(found: Sequence[Published]) -> Iterator[Claim]:
    """One setting, as far as the sources say, with numbers in two figures more than a tenth apart."""
    for one, other in combinations([one for one in found if not one.oom and one.method not in PRODUCT], 2):
        low, high = sorted((one, other), key=lambda each: each.value)
        if same_setting(one, other) and one.patches == other.patches:
            versions = " and ".join(dict.fromkeys((one["version"], other["version"])))
            how = "larger over smaller" + (
                ", one read off a curve" if one.digitized or other.digitized else ""
            )
            first = alone(one.task, found)
            if first is not None and one.devices != 1 and high.value > first.value:
                how += f"; {high.said} is more than one device takes: {first.said} ({first.row_id})"
            test = Comparison(high.value, low.value, CONTRADICTION * low.value, "s")
            printed = f"{one.said}, {other.said}"
            yield from refuted(
                [said(TWO_NUMBERS, f"{on(one)} ({versions})", (one, other), test, how, printed, "one number")]
            )


def too_many_devices(found: Sequence[Published]) -> Iterator[Claim]:
    """Degrees of parallelism whose product is more than the devices there are."""
    for one in found:
        printed = re.sub(r" *\[.*?\]", "", one["setting"])  # without remarks
        degrees = re.findall(r"\b(?:cfg|pp|ulysses|ring)=(\d+)", printed)
        needed, n = math.prod(map(int, degrees)), one.devices or 1
        twins = [
            each
            for each in found
            if each.method == HYBRID
            and (each.devices, each.task, each.value) == (needed, one.task, one.value)
        ]
        also = "".join(f"; {each.row_id} has {each.said} for the hybrid on {needed}" for each in twins)
        what = f"{printed} on {n} {one.gpu}, {one.model}, {one.px} px"
        if needed > n:
            how, test = f"{' x '.join(degrees)} = {needed}{also}", Comparison(needed, n, unit="devices")
            yield said(
                IMPOSSIBLE, what, (one, *twins), test, how, f"{n} devices, {one.said}", f"{needed} devices"
            )


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
            same = all(
                getattr(one, key) == getattr(other, key) for key in ("model", "px", "devices", "compiler")
            )
            expected = gpu_ratio(one, other, found)
            if not same or expected is None or other.steps is None:
                continue
            ratios = [each.value / (each.steps or 1) / (other.value / other.steps) for each in read]
            off = [abs(each / expected - 1) for each in ratios]
            if off[0] > CONTRADICTION > off[1]:
                what = f"one {one.gpu}, {one.model}, {one.px} px, {one.compiler or 'eager'}"
                how = f"seconds a step over those of one {other.gpu}: {ratios[0]:.2f} with {printed} steps, "
                how += f"{ratios[1]:.2f} with {likely[0]}; on PixArt {expected:.2f}"
                test = Comparison(ratios[0], expected, CONTRADICTION * expected)
                words = f"{one.said} for {printed} steps", f"{likely[0]} steps"
                yield said(IMPOSSIBLE, what, (one, other), test, how, *words)


def gpu_ratio(one: Published, other: Published, found: Sequence[Published]) -> float | None:
    """The shortest seconds of PixArt on one GPU over those on another, of the same size."""
    firsts = [
        [
            each.value
            for each in found
            if (each.devices, each.model, each.compiler, each.gpu, each.px) == (1, MODEL, "", gpu, one.px)
        ]
        for gpu in (one.gpu, other.gpu)
    ]
    return min(firsts[0]) / min(firsts[1]) if all(firsts) and one.gpu != other.gpu else None


def slower(found: Sequence[Published], ours: dict[str, float]) -> Iterator[Claim]:
    """One source, one method: more devices clearly slower as published and clearly faster as predicted."""
    told: set[str] = set()  # figures repeat each other's numbers
    for pair in combinations([one for one in found if one.row_id in ours and not one.oom], 2):
        few, many = sorted(pair, key=lambda each: each.devices or 0)
        alike = few.method == "serial" or (few.method, few.patches) == (many.method, many.patches)
        if (
            few["source"] != many["source"]
            or few.task != many.task
            or few.devices == many.devices
            or not alike
        ):
            continue
        printed, predicted = many.value / few.value, ours[few.row_id] / ours[many.row_id]
        what = on(many, f"{few.devices} and {many.devices}")
        if min(printed, predicted) > 1 + CONTRADICTION and what not in told:
            told.add(what)
            expected = f"{ours[few.row_id]:.3g} s, {ours[many.row_id]:.3g} s (predicted)"
            how = "more than a tenth slower with more devices, and predicted to be more than a tenth faster"
            test = Comparison(printed, None, relation="less", bound=1.0)
            made = said(SLOWER, what, (few, many), test, how, f"{few.said}, {many.said}", expected)
            yield replace(made, kind="predicted")


def mixed_types(rows: Rows) -> Iterator[Claim]:
    """Sizes on disk that the text puts side by side, with different numbers of bytes a parameter."""
    counts, sizes = by_model("DiT params", rows), by_model("DiT on disk", rows)
    both = [(one, counts[model]) for model, one in sizes.items() if model in counts]
    each = {one["model"]: one.value / count.value for one, count in both}
    if each:
        least = min(each.values())
        test = Comparison(max(each.values()), least, CONTRADICTION * least)
        how = "bytes a parameter: " + ", ".join(f"{model} {value:.1f}" for model, value in each.items())
        printed = ", ".join(f"{one.value:g} GB" for one, _ in both)
        what = f"size on disk of {', '.join(each)}, side by side"
        yield said(
            MEMORY, what, [row for pair in both for row in pair], test, how, printed, "one type for all"
        )


def peaks(rows: Rows) -> Iterator[tuple[Published, Published]]:
    """Published peaks of several devices that fitted, each with that of one in the same figure."""
    for row in rows.values():
        base = base_of(row, rows) if row["metric"] in ("peak memory", "max memory") else None
        if base is not None and row.devices != 1 and not row.oom:
            yield row, base


def base_of(row: Published, rows: Rows) -> Published | None:
    """The same source's peak of one device."""
    keys = ("source", "model", "resolution", "metric")
    return next(
        (one for one in rows.values() if one.devices == 1 and all(one[key] == row[key] for key in keys)), None
    )


def too_little(rows: Rows) -> Iterator[Claim]:
    """Peaks of `text encoder and DiT` below the text encoders and an N-th of the DiT, sizes as on disk.

    Only where one device's peak shows that they are held as on disk; the peak's GB may have been GiB.
    """
    transformers, encoders = by_model("DiT on disk", rows), by_model("text encoders on disk", rows)
    for peak, base in peaks(rows):
        model, n = peak["model"], peak.devices
        if peak.method != "pipefusion" or model not in transformers or n is None:
            continue
        dit, text = transformers[model], encoders[model]
        least = text.value + dit.value / n
        if base.value >= text.value + dit.value:
            how = f"text encoders {text.value:g} GB + DiT {dit.value:g} GB / {n}, as on disk, which one device's "
            how += f"{base.value:g} GB holds; GiB for GB would not explain it"
            what = f"peak of PipeFusion on {n}, {model}, {peak['resolution']} px, with text encoders"
            test = Comparison(peak.value, None, 0.0, "GB", "more", least, peak.value, peak.value * GIB / GB)
            words = f"{peak.value:g} GB", f"at least {least:.4g} GB"
            yield said(MEMORY, what, (peak, base, text, dit), test, how, *words)


def opposite_signs(rows: Rows) -> Iterator[Claim]:
    """Two figures of which one has a method above one device's memory, and the other below it."""
    groups: dict[tuple[str, int | None, str], list[tuple[Published, Published]]] = {}
    for peak, base in peaks(rows):
        if peak.method in (SP, *METHODS.values()):
            kin = "ulysses" if peak.method == SP else peak.method
            groups.setdefault((peak.model, peak.px, kin), []).append((peak, base))
    for (model, px, _), pair in groups.items():
        shares = [peak.value / base.value - 1 for peak, base in pair]
        if len(pair) == 2 and min(shares) < 0 < max(shares):
            names = " and ".join(dict.fromkeys(peak["method"] for peak, _ in pair))
            how = "; ".join(
                f"{peak.value:g} against {base.value:g} GB, N {peak['n_devices']} ({peak['version']})"
                for peak, base in pair
            )
            apart = max(shares) - min(shares)
            what = f"peak of {names} beside one device's, {model}, {px} px"
            printed, each = (
                ", ".join(f"{100 * share:+.0f} %" for share in shares),
                [row for both in pair for row in both],
            )
            test = Comparison(apart, None, relation="less", bound=CONTRADICTION)
            yield replace(said(MEMORY, what, each, test, how, printed, "one sign"), size=apart)


def by_model(metric: str, rows: Rows) -> dict[str, Published]:
    return {row["model"]: row for row in rows.values() if row["metric"] == metric}


def versions(rows: Rows, layers: int) -> Iterator[Claim]:
    """Cells of Table 1 for which its versions print different formulas; in numbers for a model of so many layers."""
    units = Units(a=1.0, p=1.0, layers=layers, n=DEVICES, m=DEVICES)
    cells: dict[tuple[str, str], dict[str, list[Published]]] = {}
    for row in (row for row_id, row in rows.items() if row_id.startswith(TABLE1)):
        for column in COLUMNS:
            # `(2/N)A=KV/N` says one thing twice; `yes*` and `stale-` are words with a footnote.
            text = row[column].rpartition("=")[2].strip("*- ")
            if text not in NOTHING:
                cells.setdefault((row["method"], column), {}).setdefault(text, []).append(row)
    for (method, column), texts in cells.items():
        if len(texts) > 1:
            costs = [COSTS[text](units) for text in texts if formula_of(text)]
            known = len(costs) > 1 and min(costs) > 0
            how = f"largest over smallest with A = p*hs, N=M={DEVICES}, L={layers}"
            printed = "; ".join(
                f"{text} ({', '.join(row['version'] for row in each)})" for text, each in texts.items()
            )
            each = [row for part in texts.values() for row in part]
            test = Comparison(len(texts), 1, unit="formulas")
            what, why = (
                f"{method}, {column.replace('_', ' ')}",
                how if known else "no ratio: one is 0, or no formula",
            )
            made = said(VERSIONS, what, each, test, why, printed, "one formula")
            yield replace(made, size=max(costs) / min(costs) - 1 if known else math.nan)
