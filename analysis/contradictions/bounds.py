"""Published latencies that are less than their own setting allows, or more than N times faster than one device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from analysis.contradictions.finding import Finding
from analysis.paper.facts import ROUNDING, WARMUP, Latency, bound_s
from analysis.paper.ratios import communication_cost, task_of
from analysis.rows import Rows
from analysis.style import label

BOUND, UNCUT = "below its own bound", "below the bound of whole layers"
LINEAR = "more than N times one device"
Layers = dict[str, int]
"""Model -> layers."""


def alone(task: tuple[str, str, int, int, str], found: Sequence[Latency]) -> Latency | None:
    """The shortest time published for one device at this task."""
    ones = [one for one in found if one.devices == 1 and one.task == task and not one.oom]
    return min(ones, key=lambda one: one.seconds, default=None)


def beside_one(found: Sequence[Latency]) -> Iterator[tuple[Latency, Latency]]:
    """The latencies on more than one device, each with the shortest one of a single device."""
    for one in found:
        first = alone(one.task, found)
        if one.devices > 1 and first is not None:
            yield one, first


def below_bound(found: Sequence[Latency]) -> Iterator[Finding]:
    """PipeFusion faster than W steps on one device and the rest on N."""
    for one, first in beside_one(found):
        w = WARMUP if one.warmup is None else one.warmup
        bound = bound_s(first.seconds, one.steps, w, 1 / one.devices)
        if one.method == "pipefusion" and clearly_less(one, bound):
            how = f"{first.said} ({first.row_id}) x ({w} + {one.steps - w}/{one.devices}) / {one.steps}"
            how += "" if one.warmup is not None else f", W={w} being the paper's default"
            yield finding(BOUND, one, bound, how + compiled(one, w, found))


def clearly_less(one: Latency, bound: float) -> bool:
    """Less than a bound by more than rounding, or reading off a curve, explains."""
    return one.seconds * (1 + one.tolerance) < bound


def compiled(one: Latency, w: int, found: Sequence[Latency]) -> str:
    """What the bound would be by the shortest time of compiled code."""
    first = alone((*one.task[:-1], "torch.compile"), found)
    if first is None:
        return ""
    bound = bound_s(first.seconds, one.steps, w, 1 / one.devices)
    return f"; from compiled code's {first.said} ({first.row_id}) {bound:.4g} s"


def whole_layers(found: Sequence[Latency], layers: Layers) -> Iterator[Finding]:
    """PipeFusion faster than its slowest stage allows without any synchronous step: layers are not cut."""
    for one, first in beside_one(found):
        if one.method == "pipefusion":
            count = layers[one.model]
            most = math.ceil(count / one.devices)
            bound = bound_s(first.seconds, one.steps, 0, most / count)
            if clearly_less(one, bound):
                how = (
                    f"even with W=0: {first.said} ({first.row_id}) x {most}/{count}, as of {count} layers on "
                )
                how += f"{one.devices} devices one has {most}; what is outside of the layers is neglected"
                yield finding(UNCUT, one, bound, how)


def superlinear(found: Sequence[Latency]) -> Iterator[Finding]:
    """Any method that takes less than an N-th of one device."""
    for one, first in beside_one(found):
        bound = first.seconds / one.devices
        if clearly_less(one, bound):
            how = (
                f"{first.said} ({first.row_id}) / {one.devices}; needs pieces that run faster than the whole"
            )
            yield finding(LINEAR, one, bound, how)


def speedups(rows: Rows) -> Iterator[Finding]:
    """Speedups of the text over one device that are more than N."""
    for row_id, row in rows.items():
        if row.get("metric") == "speedup" and "1 GPU" in row["setting"]:
            value, n = float(row["value"]), int(row["n_devices"])
            if value > (1 + ROUNDING) * n:
                yield Finding(
                    kind=LINEAR,
                    what=f"{row['method']} on {n} {task_of(row)[0]}, {row['model']}, {row['resolution']} px",
                    rows=(row_id,),
                    printed=f"{value:g} x",
                    expected=f"at most {n} x",
                    size=value / n - 1,
                    how="the text's speedup over N; needs pieces that run faster than the whole",
                )


def communication(found: Sequence[Latency], rows: Rows) -> Iterator[Finding]:
    """What the text counts as PipeFusion's communication is less than what one synchronous step loses already."""
    for row_id, row in rows.items():
        if row.get("metric") != "communication cost" or row["method"] != "PipeFusion":
            continue
        gpu, _, model, resolution, steps = task_of(row)
        first, n = alone((gpu, model, resolution, steps, ""), found), int(row["n_devices"])
        value = float(row["value"])
        if first is None:
            continue
        least = communication_cost(first.seconds, bound_s(first.seconds, steps, WARMUP, 1 / n), n)
        if value * (1 + ROUNDING) < least:
            yield Finding(
                kind=BOUND,
                what=f"{row['setting']} of PipeFusion, {model}, {resolution} px",
                rows=(row_id, first.row_id),
                printed=f"{value:g} s",
                expected=f"at least {least:.4g} s",
                size=1 - value / least,
                how=f"W={WARMUP}: a synchronous step takes {first.said} ({first.row_id}) / {steps} on any N, and "
                f"what is beyond 1/{n} of it is counted",
            )


def finding(kind: str, one: Latency, bound: float, how: str) -> Finding:
    """One latency below what it can be."""
    what = f"{label(one.method)} on {one.devices} {one.gpu}, {one.model}, {one.resolution} px"
    size = 1 - one.seconds / bound
    return Finding(kind, what, (one.row_id,), one.said, f"at least {bound:.4g} s", size, how)
