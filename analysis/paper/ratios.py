"""The ratios that the paper's text states, from any source of seconds: the published ones, or our predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis.paper.facts import HYBRID, SP, USP, gpu_of, link_of, method_of, model_of, stated
from analysis.rows import Row
from analysis.style import label


@dataclass(frozen=True)
class Timed:
    """Seconds, the method that took them, and the row or run that says so."""

    seconds: float
    method: str
    origin: str


@dataclass(frozen=True)
class Ratio:
    """What a claim comes to, from which numbers; without a value, `how` says what is missing."""

    value: float | None
    how: str
    origins: tuple[str, ...] = ()


Clock = Callable[[str, int], Timed | None]
"""(Method, devices) -> the seconds of the claim's task, where they are known."""
RIVALS = ("tensor", "ulysses", "ring", "distrifusion", USP)
SEQUENCE = ("ulysses", "ring", USP)


def speedup(slower_s: float, faster_s: float) -> float:
    return slower_s / faster_s


def communication_cost(one_s: float, all_s: float, devices: int) -> float:
    """As the paper counts it: what N devices take beyond an N-th of one device's seconds."""
    return all_s - one_s / devices


def communication_share(one_s: float, all_s: float, devices: int) -> float:
    return communication_cost(one_s, all_s, devices) / all_s


def effective_ratio(patches: int, steps: int, devices: int) -> float:
    """The share of micro-steps in which a stage works, filling and draining counted, warm-up not."""
    return patches * steps / (patches * steps + devices - 1)


def speedup_of(row: Row, clock: Clock) -> Ratio:
    """The speedup of a row of claims.csv: over one device, or over the fastest of the methods it names."""
    devices = int(row["n_devices"])
    mine = clock(method_of({**row, "setting": row["method"]}, devices), devices)
    alone = "1 GPU" in row["setting"]
    other = clock("serial", 1) if alone else fastest(rivals_of(row), devices, clock)
    if mine is None or other is None:
        missing = row["method"] if mine is None else row["setting"].removeprefix("vs ")
        return Ratio(None, f"no seconds of {missing}")
    value = speedup(other.seconds, mine.seconds)
    return Ratio(value, f"{said(other)} / {said(mine)}", (other.origin, mine.origin))


def communication_of(row: Row, clock: Clock) -> Ratio:
    """The communication cost (s) or share (%) of a row of claims.csv."""
    devices = int(row["n_devices"])
    method = method_of(row, devices)
    one = clock("serial", 1)
    many = fastest(SEQUENCE if method == SP else (method,), devices, clock)
    if one is None or many is None:
        return Ratio(None, f"no seconds of {row['method'] if many is None else 'one device'}")
    cost = communication_cost(one.seconds, many.seconds, devices)
    how, origins = f"{said(many)} - {said(one)} / {devices}", (one.origin, many.origin)
    if row["unit"] != "%":
        return Ratio(cost, how, origins)
    return Ratio(
        100 * communication_share(one.seconds, many.seconds, devices),
        f"({how}) / {many.seconds:.4g} s",
        origins,
    )


def effective_of(row: Row) -> Ratio:
    """The effective computation ratio of a row of claims.csv, in %."""
    said = row["setting"]
    patches, steps = stated("M", said) or stated("N", said), stated("S", said)
    if patches is None or steps is None:
        return Ratio(None, "M or S is not stated")
    n = int(row["n_devices"])
    value = 100 * effective_ratio(patches, steps, n)
    return Ratio(value, f"M S / (M S + N - 1) with M={patches}, S={steps}, N={n}")


def ratio_of(row: Row, clock: Clock) -> Ratio:
    """Any row of claims.csv."""
    if row["metric"] == "speedup":
        return speedup_of(row, clock)
    if row["metric"].startswith("communication"):
        return communication_of(row, clock)
    if row["metric"] == "effective computation ratio":
        return effective_of(row)
    return Ratio(None, f"no formula of {row['metric']}")


def rivals_of(row: Row) -> tuple[str, ...]:
    """The methods of which the fastest is meant: USP where it is named, else all but PipeFusion."""
    return (USP,) if USP in row["setting"] else RIVALS


def fastest(methods: tuple[str, ...], devices: int, clock: Clock) -> Timed | None:
    """Of these methods the one that takes least."""
    found = [timed for method in methods if (timed := clock(method, devices))]
    return min(found, key=lambda timed: timed.seconds) if found else None


def said(timed: Timed) -> str:
    return f"{timed.seconds:.4g} s ({label(timed.method)})"


def uses_hybrid(row: Row) -> bool:
    """Whether a claim is about several methods at once, which none of ours is."""
    return USP in row["setting"] or method_of({**row, "setting": row["method"]}, 2) == HYBRID


def task_of(row: Row) -> tuple[str, str, str, int, int]:
    """GPU, link, model, resolution and steps of a claim."""
    link = link_of(row, int(row["n_devices"]))
    return gpu_of(row), link, model_of(row), int(row["resolution"]), int(row["steps"])
