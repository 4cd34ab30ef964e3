"""How many patches, how many synchronous steps: what the sweeps over M and W say, beside predictions of each point."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, exp

from analysis.evidence.claim import APART, Claim, Comparison, faster, weakest, within
from analysis.evidence.latency import L20, compared, predicted
from analysis.evidence.published import HYBRID, least_s
from analysis.evidence.records import LEAST, MODEL, Evidence
from analysis.records.committed import ACCOUNTING

LATER, TABLE = "latency-L20", "Table 3"
"""The later figure of the older repository, which has W = 0 and W = 1; the paper's table over W."""
TWO = ("pipefusion", "pipefusion")
"""What the error of a ratio of two of its latencies is made of."""
Seconds = dict[int, float]
"""By M."""


def claims(evidence: Evidence) -> Iterator[Claim]:
    """All of this theme."""
    for devices in (2, 8):
        for px in (1024, 2048, 4096):
            yield best(evidence, devices, px)
    for px in (1024, 4096):
        yield spread(evidence, 8, px)
    yield less_sensitive(evidence, 8)
    for px in (2048, 4096):
        rows, *_ = sweep(evidence, 8, px)
        few = min(rows)  # fewer patches than devices leave devices idle in every step
        sentence = f"M = {few} takes {{:.2f}} times as long as M = N = 8 (L20, PixArt, {px} px)."
        yield compared(evidence, f"few-patches-{px}", sentence, [(rows[few], rows[8])], equal=True)
    yield linear(evidence)
    yield slope(evidence)
    for px in (1024, 2048, 4096):
        yield one_step(evidence, px)
    yield convention(evidence)
    yield slope(evidence, hybrid=True)


Sweep = tuple[dict[int, str], Seconds, Seconds]


def sweep(evidence: Evidence, devices: int, px: int, least: int = 0) -> Sweep:
    """By M, from a least one on: the rows, their published seconds, and ours; rows that were fitted are left out."""
    ids = evidence.pick("patch_sweep", n_devices=devices, resolution=px)
    mine = {row_id: seconds for row_id in ids if (seconds := evidence.predicted(row_id)) is not None}
    rows = {m: row_id for row_id in mine if (m := int(evidence.predictions.patches[row_id])) >= least}
    return (
        rows,
        {m: evidence.value(one) for m, one in rows.items()},
        {m: mine[one] for m, one in rows.items()},
    )


def apart(seconds: Seconds) -> float:
    """Slowest over fastest, less 1, in %."""
    return 100 * (max(seconds.values()) / min(seconds.values()) - 1)


def best(evidence: Evidence, devices: int, px: int) -> Claim:
    """The M that was the fastest is predicted to be faster than each other."""
    rows, theirs, mine = sweep(evidence, devices, px)
    first, found = min(theirs, key=lambda m: theirs[m]), min(mine, key=lambda m: mine[m])
    error = evidence.error(px, *TWO)
    tests = {m: faster(mine[m] / mine[first], theirs[m] / theirs[first], error) for m in mine if m != first}
    test = weakest(tests.values())
    other = next(m for m, one in tests.items() if one is test)
    statement = f"M = {first} is the fastest on {devices} L20 (PixArt, {px} px)."
    note = f"Predicted latency at M = {other} over that at M = {first}; the least is at M = {found}"
    return predicted(f"best-patches-{devices}-{px}", statement, tuple(rows.values()), test, note)


def spread(evidence: Evidence, devices: int, px: int) -> Claim:
    """How much the choice of M matters, as long as M >= N: less than can be read, or as much as is printed."""
    rows, *both = sweep(evidence, devices, px, devices)
    theirs, mine = map(apart, both)
    task = f"(M = {min(rows)} to {max(rows)} on {devices} L20, PixArt, {px} px)"
    low, high = spread_between(mine, evidence.error(px, *TWO))
    if theirs < 100 * LEAST:
        test = Comparison(mine, theirs, 0.0, "%", "less", 100 * LEAST, low, high)
        statement = f"Latency does not depend on M: it varies by {theirs:.3g} % {task}."
        note = "Less than what a published number is trusted to"
    else:
        test = Comparison(mine, theirs, APART * theirs, "%", low=low, high=high)
        statement = f"Latency varies by {theirs:.3g} % with M {task}."
        note = "The slowest over the fastest, less 1"
    return predicted(f"spread-{px}", statement, tuple(rows.values()), test, note)


def less_sensitive(evidence: Evidence, devices: int) -> Claim:
    """Large images hide the cost of many patches."""
    (small, *of_small), (large, *of_large) = (sweep(evidence, devices, px, devices) for px in (1024, 4096))
    theirs, mine = (apart(one) - apart(other) for one, other in zip(of_small, of_large, strict=True))
    low, high = spread_between(apart(of_small[1]), evidence.error(1024, *TWO))
    least, most = spread_between(apart(of_large[1]), evidence.error(4096, *TWO))
    test = Comparison(mine, theirs, 0.0, "points", "more", 0.0, low - most, high - least)
    statement = f"Latency depends more on M at 1024 px than at 4096 px (M >= N = {devices}, L20, PixArt)."
    note = "Spread over M at 1024 px less that at 4096 px"
    return predicted("spread-order", statement, (*small.values(), *large.values()), test, note)


def spread_between(percent: float, error: float) -> tuple[float, float]:
    """The interval of a spread, which is a ratio of two latencies less 1, and at least nothing."""
    low, high = (100 * (1 + percent / 100) * exp(sign * error) - 100 for sign in (-1, 1))
    return max(0.0, low), high


def table3(evidence: Evidence, hybrid: bool) -> tuple[list[str], list[float], list[float]]:
    """The rows of the table over W, with or without guidance groups, their seconds, and what is predicted for them."""
    ids = evidence.pick("warmup", source=TABLE)
    ids = [row_id for row_id in ids if (evidence.rows[row_id].method == HYBRID) == hybrid]
    ours = [seconds for one in ids if (seconds := evidence.predicted(one)) is not None]
    return ids, [evidence.value(row_id) for row_id in ids], ours


def linear(evidence: Evidence) -> Claim:
    """Equal increments."""
    ids, theirs, mine = table3(evidence, hybrid=False)
    steps, claimed = ([b - a for a, b in pairwise(each)] for each in (mine, theirs))
    test = Comparison(steps[1] / steps[0], claimed[1] / claimed[0], unit="×", bound=1.0)
    statement = (
        "Latency grows linearly with W: every synchronous step costs the same (8 L40, PixArt, 1024 px)."
    )
    note = "The second increment over the first"
    blocked = "The cost model charges every synchronous step alike: it could not say otherwise"
    return predicted("warmup-linear", statement, ids, test, note, blocked=blocked)


def slope(evidence: Evidence, hybrid: bool = False) -> Claim:
    """Seconds a synchronous step costs; with guidance in groups each runs it on its own branch."""
    ids, theirs, mine = table3(evidence, hybrid)
    row, rises = evidence.rows[ids[0]], len(ids) - 1
    step, px = (theirs[-1] - theirs[0]) / rises, row.px or 0
    test, note = Comparison(None, step, unit="s"), ""
    if len(mine) == len(ids):
        error, note = evidence.error(px, row.method), "Interval: the error of a latency"
        test = difference((mine[-1] - mine[0]) / rises, step, mine[-1] / rises, error)
    if hybrid:
        statement = f"With groups of guidance a synchronous step costs {step:.2g} s (8 L40, PixArt, 1024 px)."
        blocked = "" if note else "Not measured: not all of these rows have a prediction in the record"
        return predicted("warmup-hybrid", statement, ids, test, note, blocked=blocked)
    one = evidence.seconds(MODEL, "l40_pcie", px, 1, "serial")
    assert one is not None and row.devices is not None and row.steps is not None
    statement = f"A synchronous step more costs {step:.3g} s (8 L40, PixArt, {px} px)."
    form = f"Closed form t1 (1 - 1/N) / S: {one * (1 - 1 / row.devices) / row.steps:.3g} s"
    return predicted("warmup-slope", statement, ids, test, form, note)


def one_step(evidence: Evidence, px: int) -> Claim:
    """The same on L20, W = 1 less W = 0."""
    ids = [evidence.one("warmup", source=LATER, resolution=px, setting=f"W={w}") for w in (1, 0)]
    theirs = evidence.value(ids[0]) - evidence.value(ids[1])
    more, less = map(evidence.predicted, ids)
    test = Comparison(None, theirs, unit="s")
    if more and less:
        test = difference(more - less, theirs, more, evidence.error(px, "pipefusion"))
    statement = f"W = 1 takes {theirs:.3g} s more than W = 0 (8 L20, PixArt, {px} px)."
    note = "A difference of two latencies, with the error of one"
    return predicted(f"warmup-l20-{px}", statement, ids, test, note)


def difference(value: float, published: float, latency: float, error: float) -> Comparison:
    """A difference of two latencies, off by as much as the larger of them may be."""
    off = latency * (exp(error) - 1)
    return Comparison(value, published, APART * abs(published), "s", low=value - off, high=value + off)


def convention(evidence: Evidence) -> Claim:
    """Whether W counts the synchronous steps, as the text says."""
    px = 4096
    row_id = evidence.one("warmup", source=LATER, resolution=px, setting="W=1")
    one = evidence.one("latency", source=L20, resolution=px, n_devices=1)
    row, layers = evidence.rows[row_id], evidence.accounts["models"][MODEL]["layers"]
    assert row.steps is not None and row.devices is not None
    cut = ceil(layers / row.devices)
    first, second = (least_s(evidence.value(one), row.steps, w, cut / layers) for w in (1, 2))
    test = within(first, row.value, APART, "s")
    statement = (
        f"W = 1 means one synchronous step: PipeFusion takes {row.value:g} s on 8 L20 (PixArt, {px} px)."
    )
    note = f"From the published seconds of one GPU, {layers} layers cut by {cut}, nothing spent on links; "
    note += f"two synchronous steps give {second:.3g} s"
    return Claim("warmup-convention", statement, (row_id, one), "computed", (ACCOUNTING,), test, note)
