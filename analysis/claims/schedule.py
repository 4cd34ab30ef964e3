"""How many patches, how many synchronous steps: what the sweeps over M and W say, beside predictions of each point."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, exp

from analysis.claims.claim import APART, Claim, Comparison, about, faster, weakest, within
from analysis.claims.evidence import ACCOUNTING, LEAST, MODEL, PREDICTIONS, Evidence
from analysis.claims.text import NO_HYBRID

SWEEP = "patch_sweep"
LATER = "latency-L20"
"""The later figure of the older repository, which has W = 0 and W = 1."""
TABLE = "Table 3"
TWO = ("pipefusion", "pipefusion")
"""What the error of a ratio of two of its latencies is made of."""


def claims(evidence: Evidence) -> Iterator[Claim]:
    """All of this theme."""
    for devices in (2, 8):
        for px in (1024, 2048, 4096):
            yield best(evidence, devices, px)
    for px in (1024, 4096):
        yield spread(evidence, 8, px)
    yield less_sensitive(evidence, 8)
    for px in (2048, 4096):
        yield too_few(evidence, 8, px)
    yield linear(evidence)
    yield slope(evidence)
    for px in (1024, 2048, 4096):
        yield one_step(evidence, px)
    yield convention(evidence)
    yield hybrid(evidence)


def sweep(evidence: Evidence, devices: int, px: int) -> dict[int, str]:
    """M -> row."""
    ids = evidence.pick(SWEEP, n_devices=devices, resolution=px)
    return {int(evidence.prediction(row_id)["patches"]): row_id for row_id in ids}


def ours(evidence: Evidence, rows: dict[int, str]) -> dict[int, float]:
    """M -> predicted seconds."""
    found = {patches: evidence.predicted(row_id) for patches, row_id in rows.items()}
    return {patches: seconds for patches, seconds in found.items() if seconds is not None}


def published(evidence: Evidence, rows: dict[int, str]) -> dict[int, float]:
    """M -> published seconds."""
    return {patches: evidence.value(row_id) for patches, row_id in rows.items()}


def apart(seconds: dict[int, float]) -> float:
    """Slowest over fastest, less 1."""
    return max(seconds.values()) / min(seconds.values()) - 1


def best(evidence: Evidence, devices: int, px: int) -> Claim:
    """The M that was the fastest is predicted to be faster than each other."""
    rows = sweep(evidence, devices, px)
    said, mine = published(evidence, rows), ours(evidence, rows)
    first, found = min(said, key=lambda m: said[m]), min(mine, key=lambda m: mine[m])
    error = evidence.error(px, *TWO)
    tests = {m: faster(mine[m] / mine[first], said[m] / said[first], error) for m in mine if m != first}
    test = weakest(tests.values())
    other = next(m for m, one in tests.items() if one is test)
    statement = f"M = {first} is the fastest on {devices} L20 (PixArt, {px} px)."
    note = f"Predicted latency at M = {other} over that at M = {first}; the least is at M = {found}"
    claim = f"best-patches-{devices}-{px}"
    return Claim(claim, statement, tuple(rows.values()), "predicted", (PREDICTIONS,), test, note)


def spread(evidence: Evidence, devices: int, px: int) -> Claim:
    """How much the choice of M matters, as long as M >= N: less than can be read, or as much as is printed."""
    rows = {m: row_id for m, row_id in sweep(evidence, devices, px).items() if m >= devices}
    said, mine = 100 * apart(published(evidence, rows)), 100 * apart(ours(evidence, rows))
    task = f"(M = {min(rows)} to {max(rows)} on {devices} L20, PixArt, {px} px)"
    low, high = spread_between(mine, evidence.error(px, *TWO))
    if said < 100 * LEAST:
        test = Comparison(mine, said, 0.0, "%", "less", 100 * LEAST, low, high)
        statement = f"Latency does not depend on M: it varies by {said:.3g} % {task}."
        note = "Less than what a published number is trusted to"
    else:
        test = Comparison(mine, said, APART * said, "%", low=low, high=high)
        statement = f"Latency varies by {said:.3g} % with M {task}."
        note = "The slowest over the fastest, less 1"
    return Claim(f"spread-{px}", statement, tuple(rows.values()), "predicted", (PREDICTIONS,), test, note)


def less_sensitive(evidence: Evidence, devices: int) -> Claim:
    """Large images hide the cost of many patches."""
    small, large = (
        {m: row_id for m, row_id in sweep(evidence, devices, px).items() if m >= devices}
        for px in (1024, 4096)
    )
    said, mine = (100 * (apart(of(evidence, small)) - apart(of(evidence, large))) for of in (published, ours))
    (low, high), (least, most) = (
        spread_between(100 * apart(ours(evidence, rows)), evidence.error(px, *TWO))
        for rows, px in ((small, 1024), (large, 4096))
    )
    test = Comparison(mine, said, 0.0, "points", "more", 0.0, low - most, high - least)
    statement = f"Latency depends more on M at 1024 px than at 4096 px (M >= N = {devices}, L20, PixArt)."
    sources = (*small.values(), *large.values())
    note = "Spread over M at 1024 px less that at 4096 px"
    return Claim("spread-order", statement, sources, "predicted", (PREDICTIONS,), test, note)


def spread_between(percent: float, error: float) -> tuple[float, float]:
    """The interval of a spread, which is a ratio of two latencies less 1, and at least nothing."""
    low, high = (100 * (1 + percent / 100) * exp(sign * error) - 100 for sign in (-1, 1))
    return max(0.0, low), high


def too_few(evidence: Evidence, devices: int, px: int) -> Claim:
    """Fewer patches than devices leave devices idle in every step."""
    rows = sweep(evidence, devices, px)
    few = min(rows)
    said, mine = published(evidence, rows), ours(evidence, rows)
    test = about(mine[few] / mine[devices], said[few] / said[devices], evidence.error(px, *TWO), "×")
    statement = (
        f"M = {few} takes {test.published:.2f} times as long as M = N = {devices} (L20, PixArt, {px} px)."
    )
    sources = (rows[few], rows[devices])
    return Claim(f"few-patches-{px}", statement, sources, "predicted", (PREDICTIONS,), test)


def table3(evidence: Evidence) -> tuple[list[str], list[float]]:
    """The rows of the table over W without guidance groups, and what is predicted for them."""
    ids = [
        row_id
        for row_id in evidence.pick("warmup", source=TABLE)
        if "cfg" not in evidence.rows[row_id]["setting"]
    ]
    seconds = [evidence.predicted(row_id) for row_id in ids]
    return ids, [one for one in seconds if one is not None]


def linear(evidence: Evidence) -> Claim:
    """Equal increments."""
    ids, mine = table3(evidence)
    said = [evidence.value(row_id) for row_id in ids]
    steps, claimed = ([b - a for a, b in pairwise(each)] for each in (mine, said))
    test = Comparison(steps[1] / steps[0], claimed[1] / claimed[0], unit="×", bound=1.0)
    statement = (
        "Latency grows linearly with W: every synchronous step costs the same (8 L40, PixArt, 1024 px)."
    )
    note = "The second increment over the first"
    blocked = "The cost model charges every synchronous step alike: it could not say otherwise"
    return Claim("warmup-linear", statement, tuple(ids), "predicted", (PREDICTIONS,), test, note, blocked)


def slope(evidence: Evidence) -> Claim:
    """Seconds a synchronous step costs."""
    ids, mine = table3(evidence)
    said = [evidence.value(row_id) for row_id in ids]
    row = evidence.rows[ids[0]]
    px, steps, devices, rises = int(row["resolution"]), int(row["steps"]), int(row["n_devices"]), len(ids) - 1
    step = (said[-1] - said[0]) / rises
    one = evidence.seconds(MODEL, "l40_pcie", px, 1, "serial")
    assert one is not None
    test = difference((mine[-1] - mine[0]) / rises, step, mine[-1] / rises, evidence.error(px, "pipefusion"))
    statement = f"A synchronous step more costs {step:.3g} s (8 L40, PixArt, {px} px)."
    note = f"Closed form t1 (1 - 1/N) / S: {one * (1 - 1 / devices) / steps:.3g} s. Interval: the error of a latency"
    return Claim("warmup-slope", statement, tuple(ids), "predicted", (PREDICTIONS,), test, note)


def one_step(evidence: Evidence, px: int) -> Claim:
    """The same on L20, W = 1 less W = 0."""
    with_, without = (evidence.one("warmup", source=LATER, resolution=px, setting=f"W={w}") for w in (1, 0))
    said = evidence.value(with_) - evidence.value(without)
    more, less = evidence.predicted(with_), evidence.predicted(without)
    test = Comparison(None, said, unit="s")
    if more and less:
        test = difference(more - less, said, more, evidence.error(px, "pipefusion"))
    statement = f"W = 1 takes {said:.3g} s more than W = 0 (8 L20, PixArt, {px} px)."
    note = "A difference of two latencies, with the error of one"
    return Claim(f"warmup-l20-{px}", statement, (with_, without), "predicted", (PREDICTIONS,), test, note)


def difference(value: float, published: float, latency: float, error: float) -> Comparison:
    """A difference of two latencies, off by as much as the larger of them may be."""
    off = latency * (exp(error) - 1)
    return Comparison(value, published, APART * abs(published), "s", low=value - off, high=value + off)


def convention(evidence: Evidence) -> Claim:
    """Whether W counts the synchronous steps, as the text says."""
    px = 4096
    row_id = evidence.one("warmup", source=LATER, resolution=px, setting="W=1")
    one = evidence.one("latency", source="legacy/scripts/plots/L20-latency.py", resolution=px, n_devices=1)
    row, serial, layers = (
        evidence.rows[row_id],
        evidence.value(one),
        evidence.accounts["models"][MODEL]["layers"],
    )
    steps, cut = int(row["steps"]), ceil(layers / int(row["n_devices"]))

    def seconds(warmup: int) -> float:
        return serial / steps * (warmup + (steps - warmup) * cut / layers)

    published_s = evidence.value(row_id)
    test = within(seconds(1), published_s, APART, "s")
    statement = (
        f"W = 1 means one synchronous step: PipeFusion takes {published_s:g} s on 8 L20 (PixArt, {px} px)."
    )
    note = (
        f"From the published seconds of one GPU, {layers} layers cut by {cut}, nothing spent on links; "
        f"two synchronous steps give {seconds(2):.3g} s"
    )
    return Claim("warmup-convention", statement, (row_id, one), "computed", (ACCOUNTING,), test, note)


def hybrid(evidence: Evidence) -> Claim:
    """With guidance in groups a synchronous step costs less."""
    ids = [
        row_id
        for row_id in evidence.pick("warmup", source=TABLE)
        if "cfg" in evidence.rows[row_id]["setting"]
    ]
    step = (evidence.value(ids[-1]) - evidence.value(ids[0])) / (len(ids) - 1)
    statement = f"With groups of guidance a synchronous step costs {step:.2g} s (8 L40, PixArt, 1024 px)."
    return Claim(
        "warmup-hybrid",
        statement,
        tuple(ids),
        "published",
        (),
        Comparison(None, step, unit="s"),
        "",
        NO_HYBRID,
    )
