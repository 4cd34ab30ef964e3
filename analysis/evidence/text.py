"""The ratios that the paper's text states, a row of claims.csv each: a claim of our seconds, and one of the published.

Both are one computation with another clock. What the text compares with is the *best* of the others, often a product
of Ulysses and Ring (USP): where our seconds of that are missing, the others bound the ratio from above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product

from analysis.evidence.claim import APART, Claim, Comparison, around, half_digit
from analysis.evidence.published import HYBRID, PRODUCT, ROUNDING, SP, USP, Published, Rows
from analysis.evidence.records import MODEL, Evidence
from analysis.presentation.style import label
from analysis.records.committed import LATENCY, PREDICTIONS

TEXT = "ratio in the text"
RIVALS = ("tensor", "ulysses", "ring", "distrifusion", USP)
SEQUENCE = ("ulysses", "ring", USP)


@dataclass(frozen=True)
class Timed:
    """Seconds, the method that took them, and the row that says so."""

    seconds: float
    method: str
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.seconds:.4g} s ({label(self.method)})"


Clock = Callable[[str, int], Timed | None]
"""(Method, devices) -> the seconds of the claim's task, where they are known."""


def claims(evidence: Evidence) -> list[Claim]:
    """A claim a row, of our predictions, in the order of the file."""
    return [
        bubble(row) if row["metric"].startswith("effective") else predicted(evidence, row)
        for row_id, row in evidence.rows.items()
        if row_id.startswith("claims.csv")
    ]


def where(row: Published) -> str:
    """Model, size and hardware of a row in words: `8xL40-48GB` is 8 L40."""
    return f"{row['model']}, {row['resolution']} px, {row['hardware'].partition('-')[0].replace('x', ' ')}"


def bubble(row: Published) -> Claim:
    """The share of micro-steps in which a stage works, filling and draining counted, warm-up not."""
    assert row.devices is not None and row.steps is not None
    n, m, s = row.devices, row.devices, row.steps  # as the row's setting says, M = N
    value = 100 * m * s / (m * s + n - 1)
    statement = f"With M = N = {n} and S = {s}, {row['value']} % of the micro-steps are busy."
    test = Comparison(value, row.value, half_digit(row["value"]), "%")
    return Claim(
        row.row_id, statement, (row.row_id,), "computed", (), test, "M S / (M S + N - 1), without warm-up"
    )


def sides(row: Published) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The methods whose fastest is claimed to be so much faster, and those whose fastest it is compared with."""
    if row["metric"] != "speedup":  # what is beyond an N-th of one device's seconds
        return (SEQUENCE if row.method == SP else (row.method,)), ("serial",)
    if "1 GPU" in row["setting"]:
        return (row.method,), ("serial",)
    return (row.method,), SEQUENCE if USP in row["setting"] else RIVALS


def ratio(row: Published, mine: float, other: float) -> float:
    """What the row states: the speedup, or what N devices take beyond an N-th of one, in seconds or of theirs in %."""
    if row["metric"] == "speedup":
        return other / mine
    share = other / (row.devices or 1)
    return 100 * (1 - share / mine) if row["unit"] == "%" else mine - share


def row_sentence(row: Published) -> str:
    """The row as a sentence."""
    text, unit = row["value"], row["unit"]
    if row["metric"] != "speedup":
        what = "of its latency" if unit == "%" else "beyond one eighth of one GPU's latency"
        return f"Communication of {row['method']} costs {text} {unit} {what} ({where(row)})."
    against = "the best sequence-parallel run" if USP in row["setting"] else "the second best method"
    against = "one GPU" if "1 GPU" in row["setting"] else against
    name = f"The hybrid {row['method']}" if row.method == HYBRID else row["method"]
    return f"{name} is {text} times as fast as {against} ({where(row)})."


def predicted(evidence: Evidence, row: Published) -> Claim:
    """The ratio of our seconds, with the ends that each of them may have."""
    assert row.px is not None
    cluster, px, n = f"{row.gpu}_{row.link}".lower(), row.px, row.devices or 1

    def clock(method: str, devices: int) -> Timed | None:
        own = method == HYBRID  # of which the row itself states the degrees
        seconds = (
            evidence.predicted(row.row_id)
            if own
            else evidence.seconds(row.model, cluster, px, devices, method)
        )
        return Timed(seconds, method) if seconds else None

    mine, others = timed(row, clock)
    known = {one.method for one in (*mine, *others)} or {row.method}
    records = [LATENCY] if row.model != MODEL and known - {*PRODUCT} else []
    records += [PREDICTIONS] if row.model == MODEL or known & {*PRODUCT} else []
    notes = [f"The figure is more than {n} times one GPU on {n} GPUs"] if said_x(row) > n else []
    test, blocked = Comparison(None, row.value, unit="×" if row["unit"] == "x" else row["unit"]), ""
    missing = USP in chain(*sides(row)) and USP not in known
    if mine and others:
        best, first = fastest(mine), fastest(others)
        value, relation = ratio(row, best.seconds, first.seconds), "at most" if missing else "equal"
        low, high = low_high(evidence, row, mine, others)
        test = Comparison(value, row.value, APART * row.value, test.unit, relation, low=low, high=high)
        notes.append(in_words(row, best, first))
        if missing:
            notes.append(f"The best in print may be {USP}, which the record does not have")
        elif row.method == "pipefusion" and row["metric"] != "speedup":
            notes.append("The difference holds warm-up, uneven stages and bubbles beside communication")
        if row.model != MODEL:
            notes.append("The interval is that of PixArt's predictions")
    else:
        lacking = sides(row)[1 if mine else 0]
        blocked = f"Not measured: the records have no seconds of {' or '.join(map(label, lacking))} there"
    note, ids = ". ".join(notes), (row.row_id,)
    return Claim(row.row_id, row_sentence(row), ids, "predicted", tuple(records), test, note, blocked)


def said_x(row: Published) -> float:
    """How many times as fast as one GPU, where the row says that."""
    return row.value if "1 GPU" in row["setting"] else 0.0


def timed(row: Published, clock: Clock) -> tuple[list[Timed], list[Timed]]:
    """Both sides of a row by a clock, as far as it knows them."""
    mine, others = (
        [one for name in names if (one := clock(name, 1 if name == "serial" else row.devices or 1))]
        for names in sides(row)
    )
    return mine, others


def fastest(found: Sequence[Timed]) -> Timed:
    return min(found, key=lambda one: one.seconds)


def in_words(row: Published, mine: Timed, other: Timed) -> str:
    """The ratio with its seconds."""
    if row["metric"] == "speedup":
        return f"{other} / {mine}"
    cost = f"{mine} - {other} / {row.devices}"
    return f"({cost}) / {mine.seconds:.4g} s" if row["unit"] == "%" else cost


Side = list[Timed]


def low_high(evidence: Evidence, row: Published, mine: Side, others: Side) -> tuple[float, float]:
    """The ends between which the fastest of both sides may have a ratio.

    One device's seconds are what the model is fitted on; any other's may be off.
    """
    px = row.px or 0
    if row["metric"] == "speedup":
        ends = []
        for one, other in product(mine, others):
            error = evidence.error(px, one.method, other.method)
            ends.append(around(ratio(row, one.seconds, other.seconds), error))
        return min(low for low, _ in ends), min(high for _, high in ends)
    each = [around(one.seconds, evidence.error(px, one.method)) for one in mine]
    low, high = (ratio(row, min(pair[at] for pair in each), others[0].seconds) for at in (0, 1))
    return low, high


def published(found: Sequence[Published], rows: Rows) -> Iterator[Claim]:
    """Each ratio as one of the published seconds: it follows, it does not, or its seconds are not printed."""
    for row in (row for row_id, row in rows.items() if row_id.startswith("claims.csv")):
        what = f"{row['metric']} of {row['method']} {row['setting']}, {row['model']}"
        what += f", {row['resolution']} px" if row["resolution"] else ""
        if row["metric"].startswith("effective"):
            how = f"M S / (M S + N - 1) with M={row.devices}, S={row.steps}, N={row.devices}"
            yield of_text(row, what, bubble(row).test.value, how)
            continue
        task, (names, rivals) = of_task(row, found), sides(row)
        each = [timed(row, clock) for clock in clocks(task)]
        known = [(fastest(mine), fastest(others)) for mine, others in each if mine and others]
        methods = {one.method for one in task}
        if not known:
            missing = row["setting"].removeprefix("vs ") if methods & set(names) else row["method"]
            yield of_text(row, what, None, f"no seconds of {missing}")
        elif rivals == RIVALS and USP not in methods:
            why = f"{USP} was in the figure, its seconds are inferred from this very ratio; without it: "
            yield of_text(row, what, None, why + in_words(row, *known[0]))
        else:
            values = [ratio(row, one.seconds, other.seconds) for one, other in known]
            value, (one, other) = min(
                zip(values, known, strict=True), key=lambda pair: abs(pair[0] / row.value - 1)
            )
            yield of_text(row, what, value, in_words(row, one, other), (other.origin, one.origin))


def of_text(row: Published, what: str, value: float | None, how: str, origins: tuple[str, ...] = ()) -> Claim:
    """A ratio beside what its numbers give: off by no more than rounding half of its last digit, and them, explains."""
    tolerance = ROUNDING * row.value + half_digit(row["value"])
    expected = "" if value is None else f"{value:.4g} {row['unit']}"
    printed = f"{row['value']} {row['unit']}"
    test = Comparison(value, row.value, tolerance, row["unit"])
    return Claim(
        TEXT, what, (row.row_id, *origins), "published", (), test, how, printed=printed, expected=expected
    )


def of_task(row: Published, found: Sequence[Published]) -> list[Published]:
    """The eager seconds of a claim's task that are printed, not read off a curve or inferred."""
    printed = [one for one in found if not (one.oom or one.digitized or one.inferred)]
    return [one for one in printed if one.task == row.task and one.link in ("", row.link)]


def clocks(task: list[Published]) -> Iterator[Clock]:
    """Published seconds as a claim may have taken them: every choice where figures differ."""
    options: dict[tuple[str, int], list[Timed]] = {}
    for one in task:
        known = options.setdefault((one.method, one.devices or 1), [])
        known.append(Timed(one.value, one.method, one.row_id))
    for choice in product(*options.values()):
        yield make_clock(dict(zip(options, choice, strict=True)))


def make_clock(chosen: dict[tuple[str, int], Timed]) -> Clock:
    return lambda method, devices: chosen.get((method, devices))


def shares(rows: Rows) -> Iterator[Claim]:
    """The text's memory over SP's, from the published peaks."""
    for row in rows.values():
        if row["metric"] == "memory ratio vs SP":
            keys = ("model", "resolution", "n_devices")
            peaks = {
                one.method: one
                for one in rows.values()
                if one["metric"] == "max memory" and all(one[key] == row[key] for key in keys)
            }
            what = f"memory of {row['method']} over {SP}'s, {row['model']}, {row['resolution']} px"
            mine, other = peaks.get(row.method), peaks.get(SP)
            if mine is None or other is None:
                yield of_text(row, what, None, "the peaks are not printed")
            else:
                how, origins = f"{mine['value']} GB / {other['value']} GB", (mine.row_id, other.row_id)
                yield of_text(row, what, 100 * mine.value / other.value, how, origins)
