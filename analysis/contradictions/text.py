"""Ratios and percentages of the text, computed again from the published seconds and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from analysis.contradictions.finding import CONTRADICTS, FOLLOWS, UNCHECKED, Finding
from analysis.paper import ratios
from analysis.paper.facts import ROUNDING, SP, USP, Latency
from analysis.paper.ratios import Clock, Ratio, Timed
from analysis.rows import Row, Rows
from analysis.versus.memory import max_memory

TEXT = "ratio in the text"


def claims(found: Sequence[Latency], rows: Rows) -> Iterator[Finding]:
    """Each ratio of claims.csv: it follows, it does not, or its seconds are not printed."""
    for row_id, row in rows.items():
        if not row_id.startswith("claims"):
            continue
        what = f"{row['metric']} of {row['method']} {row['setting']}, {row['model']}"
        what += f", {row['resolution']} px" if row["resolution"] else ""
        task = of_task(row, found) if row["resolution"] else []
        values = [ratios.ratio_of(row, clock) for clock in clocks(task)]
        known = [each for each in values if each.value is not None]
        if not known:
            yield unchecked(row_id, row, what, values[0].how)
        elif row["setting"] == "vs second best" and all(one.method != USP for one in task):
            why = f"{USP} was in the figure, its seconds are inferred from this very ratio; without it: {known[0].how}"
            yield unchecked(row_id, row, what, why)
        else:
            yield compared(row_id, row, what, min(known, key=lambda each: distance(row, each)))


def of_task(row: Row, found: Sequence[Latency]) -> list[Latency]:
    """The eager seconds of a claim's task that are printed, not read off a curve or inferred."""
    gpu, link, *rest = ratios.task_of(row)
    task = (gpu, *rest, "")
    printed = [one for one in found if not (one.oom or one.digitized or one.inferred)]
    return [one for one in printed if one.task == task and one.link in ("", link)]


def clocks(task: list[Latency]) -> Iterator[Clock]:
    """Published seconds as a claim may have taken them: every choice where figures differ."""
    options: dict[tuple[str, int], list[Timed]] = {}
    for one in task:
        options.setdefault((one.method, one.devices), []).append(Timed(one.seconds, one.method, one.row_id))
    for choice in product(*options.values()):
        yield clock_of(dict(zip(options, choice, strict=True)))


def clock_of(chosen: dict[tuple[str, int], Timed]) -> Clock:
    return lambda method, devices: chosen.get((method, devices))


def distance(row: Row, each: Ratio) -> float:
    return abs((each.value or 0) / float(row["value"]) - 1)


def compared(row_id: str, row: Row, what: str, each: Ratio) -> Finding:
    """A ratio beside what its numbers give."""
    off = distance(row, each)
    return Finding(
        kind=TEXT,
        what=what,
        rows=(row_id, *each.origins),
        printed=f"{row['value']} {row['unit']}",
        expected=f"{each.value:.4g} {row['unit']}",
        size=off,
        how=each.how,
        verdict=FOLLOWS if off <= tolerance(row["value"]) else CONTRADICTS,
    )


def unchecked(row_id: str, row: Row, what: str, why: str) -> Finding:
    return Finding(TEXT, what, (row_id,), f"{row['value']} {row['unit']}", "", None, why, UNCHECKED)


def tolerance(printed: str) -> float:
    """How far off rounding may be: half of the last digit, and that of the numbers it is made from."""
    decimals = len(printed.partition(".")[2])
    return ROUNDING + 0.5 * 10**-decimals / float(printed)


def shares(rows: Rows) -> Iterator[Finding]:
    """The text's memory over SP's, from the published peaks."""
    names = {id(row): row_id for row_id, row in rows.items()}
    for row_id, row in rows.items():
        if row.get("metric") != "memory ratio vs SP":
            continue
        mine, other = max_memory(row, row["method"], rows), max_memory(row, SP, rows)
        what = f"memory of {row['method']} over {SP}'s, {row['model']}, {row['resolution']} px"
        if mine is None or other is None:
            yield unchecked(row_id, row, what, "the peaks are not printed")
        else:
            value = 100 * float(mine["value"]) / float(other["value"])
            how = f"{mine['value']} GB / {other['value']} GB"
            yield compared(row_id, row, what, Ratio(value, how, (names[id(mine)], names[id(other)])))
