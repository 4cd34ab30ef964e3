"""Bounds of published numbers: seconds that their own setting does not allow, steps that they must have had, bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median

from analysis.evidence.claim import NOT_CONFIRMED, Claim, Comparison, verdict
from analysis.evidence.doubts import bound
from analysis.evidence.memory import GB, GIB
from analysis.evidence.published import (
    CONTRADICTION,
    HYBRID,
    METHODS,
    ROUNDING,
    SP,
    WARMUP,
    Published,
    Rows,
    alone,
    least_s,
)  # fmt: skip
from analysis.evidence.text import ratio
from analysis.presentation.columns import percent
from analysis.presentation.style import label

BOUND, UNCUT, LINEAR = (
    "below its own bound",
    "below the bound of whole layers",
    "more than N times one device",
)
CONVENTION, MEMORY = "number of synchronous steps", "memory"
BEYOND = 2
"""Up to how many synchronous steps more than are named are tried."""
Layers = dict[str, int]
"""Model -> layers."""


def refuted(claims: Iterable[Claim]) -> Iterator[Claim]:
    """Of these the ones that do not hold."""
    yield from (one for one in claims if verdict(one.test) == NOT_CONFIRMED)


def latencies(found: Sequence[Published], layers: Layers) -> Iterator[Claim]:
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
            how = f"even with W=0: {first.value_text} ({first.row_id}) x {most}/{count}, as of {count} layers on "
            how += f"{one.devices} devices one has {most}; what is outside of the layers is neglected"
            yield at_least(UNCUT, one, least_s(first.value, one.steps, 0, most / count), how)
        how = f"{first.value_text} ({first.row_id}) / {one.devices}; needs pieces that run faster than the whole"
        yield at_least(LINEAR, one, first.value / one.devices, how)


def at_least(kind: str, one: Published, least: float, how: str) -> Claim:
    """That a latency is no less than it can be, but for rounding or reading off a curve."""
    test = Comparison(one.value, None, 0.0, "s", "more", least, one.value, one.value * (1 + one.tolerance))
    return contradiction(kind, on(one), (one,), test, how, one.value_text, f"at least {least:.4g} s")


def on(one: Published, devices: str = "") -> str:
    return f"{label(one.method)} on {devices or one.devices} {one.gpu}, {one.model}, {one.px} px"


def contradiction(
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
    return f"; from compiled code's {first.value_text} ({first.row_id}) {bound(one, first)[0]:.4g} s"


def of_text(found: Sequence[Published], rows: Rows) -> Iterator[Claim]:
    """Speedups of the text over one device, at most N; PipeFusion's communication, at least what W = 1 loses."""
    for row in (row for row_id, row in rows.items() if row_id.startswith("claims.csv") and row.px):
        first, n = alone(row.task, found), row.devices or 1
        if row["metric"] == "speedup" and "1 GPU" in row["setting"]:
            test = Comparison(row.value, None, 0.0, "x", "less", n, row.value / (1 + ROUNDING), row.value)
            what = f"{row['method']} on {n} {row.gpu}, {row['model']}, {row['resolution']} px"
            how = "the text's speedup over N; needs pieces that run faster than the whole"
            yield contradiction(LINEAR, what, (row,), test, how, f"{row.value:g} x", f"at most {n} x")
        elif row["metric"] == "communication cost" and row.method == "pipefusion" and first is not None:
            least = ratio(row, least_s(first.value, row.steps or 1, WARMUP, 1 / n), first.value)
            test = Comparison(row.value, None, 0.0, "s", "more", least, row.value, row.value * (1 + ROUNDING))
            what = f"{row['setting']} of PipeFusion, {row.model}, {row.px} px"
            how = f"W={WARMUP}: a synchronous step takes {first.value_text} ({first.row_id}) / {row.steps} on any N, "
            how += f"and what is beyond 1/{n} of it is counted"
            yield contradiction(
                BOUND, what, (row, first), test, how, row.value_text, f"at least {least:.4g} s"
            )


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
            tried = range(named + BEYOND + 1)
            errors = {w: [step_error(one, w, found, layers) for one in points] for w in tried}
            off = {w: median(map(abs, each)) for w, each in errors.items()}
            likely = min(off, key=lambda w: off[w])
            listed = [f"{w}: {', '.join(f'{100 * each:+.0f} %' for each in errors[w])}" for w in errors]
            what = f"PipeFusion on {n} {gpu}, W={named}, {'/'.join(map(str, sizes))} px ({version})"
            printed = f"W={named}: {', '.join(one.value_text for one in points)}"
            how = f"t1 (w + (S - w) ceil(L/N)/L) / S over published, by w: {'; '.join(listed)}"
            expected = f"w={likely}, median error {percent(off[likely])}"
            test = Comparison(likely, named, unit="steps")
            yield replace(
                contradiction(CONVENTION, what, points, test, how, printed, expected), size=off[named]
            )


def step_error(one: Published, w: int, found: Sequence[Published], layers: Layers) -> float:
    """How far w synchronous steps, and the slowest stage for the others, are off a published latency."""
    first, count = alone(one.task, found), layers[one.model]
    assert first is not None and one.devices is not None and one.steps is not None, one
    return least_s(first.value, one.steps, w, math.ceil(count / one.devices) / count) / one.value - 1


def mixed_types(rows: Rows) -> Iterator[Claim]:
    """Sizes on disk that the text puts side by side, with different numbers of bytes a parameter."""
    counts, sizes = by_model("DiT params", rows), by_model("DiT on disk", rows)
    both = [(one, counts[model]) for model, one in sizes.items() if model in counts]
    bytes_ = {one["model"]: one.value / count.value for one, count in both}
    if bytes_:
        least = min(bytes_.values())
        test = Comparison(max(bytes_.values()), least, CONTRADICTION * least)
        how = "bytes a parameter: " + ", ".join(f"{model} {value:.1f}" for model, value in bytes_.items())
        printed = ", ".join(f"{one.value:g} GB" for one, _ in both)
        what = f"size on disk of {', '.join(bytes_)}, side by side"
        each = [row for pair in both for row in pair]
        yield contradiction(MEMORY, what, each, test, how, printed, "one type for all")


def peaks(rows: Rows) -> Iterator[tuple[Published, Published]]:
    """Published peaks of several devices that fitted, each with that of one in the same figure."""
    for row in rows.values():
        base = one_device_row(row, rows) if row["metric"] in ("peak memory", "max memory") else None
        if base is not None and row.devices != 1 and not row.oom:
            yield row, base


def one_device_row(row: Published, rows: Rows) -> Published | None:
    """The same source's peak of one device."""
    alike = {key: row[key] for key in ("source", "model", "resolution", "metric")}
    ones = (one for one in rows.values() if one.devices == 1)
    return next((one for one in ones if {key: one[key] for key in alike} == alike), None)


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
            yield contradiction(MEMORY, what, (peak, base, text, dit), test, how, *words)


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
            against = "{0.value:g} against {1.value:g} GB, N {0[n_devices]} ({0[version]})"
            how, apart = "; ".join(against.format(*both) for both in pair), max(shares) - min(shares)
            what = f"peak of {names} beside one device's, {model}, {px} px"
            printed = ", ".join(f"{100 * share:+.0f} %" for share in shares)
            each = [row for both in pair for row in both]
            test = Comparison(apart, None, relation="less", bound=CONTRADICTION)
            yield replace(contradiction(MEMORY, what, each, test, how, printed, "one sign"), size=apart)


def by_model(metric: str, rows: Rows) -> dict[str, Published]:
    return {row["model"]: row for row in rows.values() if row["metric"] == metric}
