"""What is doubtful about a published row: known errors of the sources, values below their own bound, repetitions.

Rows are marked, never removed or changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from analysis.paper.facts import CONTRADICTION, READING, ROUNDING
from experiments.published import FOLDER, Row, Rows, Target, published_rows, target_of


def targets(folder: Path = FOLDER) -> list[Target]:
    """Every published row that can be predicted, with its doubts marked."""
    rows = published_rows(folder)
    found = [target_of(row_id, row) for row_id, row in rows.items()]
    return marked([target for target in found if isinstance(target, Target)], rows)


def marked(found: Sequence[Target], rows: Rows) -> list[Target]:
    """The targets with flags, duplicates and contradictions filled in; `rows` are all published rows."""
    first: list[Target] = []  # what later ones may repeat: printed numbers before those read off curves
    origin: dict[str, str] = {}
    for target in sorted(found, key=lambda target: target.digitized):
        earlier = next((other for other in first if repeats(target, other, rows)), None)
        if earlier is None:
            first.append(target)
        else:
            origin[target.row_id] = earlier.row_id
    return [
        replace(
            target,
            flags=[*known_errors(target, rows), *below_bound(target, found)],
            duplicate_of=origin.get(target.row_id),
            contradicted_by=[other.row_id for other in found if contradicts(target, other, rows)],
        )
        for target in found
    ]


def known_errors(target: Target, rows: Rows) -> Iterator[str]:
    """Errors of a source that another source shows."""
    row = rows[target.row_id]
    if "NeurIPS" in row["source"] and "Table 4" in row["source"]:
        if target.method in ("ring", "ulysses"):
            yield "the table swaps the labels of Ring and Ulysses"
        if target.method == "pipefusion" and not target.parallel:
            yield "the table's PipeFusion row is the hybrid's"
    if target.method == "pipefusion" and not target.parallel and not target.digitized:
        for row_id, other in rows.items():
            if other["method"] == "hybrid" and same_cell(row, other):
                yield f"{row_id} gives the same {row['value']} s for the hybrid"


def same_cell(row: Row, other: Row) -> bool:
    """The same number for the same GPU, model, resolution and N, whatever the method."""
    keys = ("model", "resolution", "steps", "n_devices", "metric", "value")
    gpu = row["hardware"].rpartition("x")[2].split("-")[0]
    return gpu in other["hardware"] and all(row[key] == other[key] for key in keys)


def bound_s(target: Target, one_device_s: float) -> float:
    """The least seconds that N devices can take if communication and small pieces cost nothing.

    A synchronous step of PipeFusion runs its stages one after another, in the time t1/S of one device over the
    other axes' degrees; every other step of any method takes 1/N of that.
    """
    w = (target.warmup or 0) if target.method == "pipefusion" else 0
    others = math.prod(target.parallel.values())
    return one_device_s * (w / others + (target.steps - w) / target.devices) / target.steps


def below_bound(target: Target, found: Sequence[Target]) -> Iterator[str]:
    """A value that its own setting does not allow, by the shortest time published for one such GPU."""
    alone = [
        (other.published_s, other.row_id)
        for other in found
        if other.method == "serial" and other.published_s and same_task(target, other)
    ]
    if target.published_s is None or target.devices == 1 or not alone:
        return
    one, source = min(alone)
    bound = bound_s(target, one)
    if target.published_s * (1 + (READING if target.digitized else ROUNDING)) < bound:
        n, s = target.devices, target.steps
        w = (target.warmup or 0) if target.method == "pipefusion" else 0
        share = f"{w}/{math.prod(target.parallel.values())}" if target.parallel else f"{w}"
        yield (
            f"below the bound of its own setting: {target.published_s:g} s < {bound:.4g} s "
            f"= {one:g} s ({source}) x ({share} + {s - w}/{n})/{s}"
        )


def same_task(target: Target, other: Target) -> bool:
    """The same GPU, model, resolution and steps."""
    gpus = [each.cluster.split("_")[0] for each in (target, other)]
    keys = ("model", "resolution", "steps")
    return gpus[0] == gpus[1] and all(getattr(target, key) == getattr(other, key) for key in keys)


def same_setting(target: Target, other: Target) -> bool:
    """The same run as far as the sources say; on one device the links do not matter."""
    keys = ["method", "parallel", "devices", "warmup", "split"] + ["cluster"] * (target.devices > 1)
    return (
        target is not other
        and same_task(target, other)
        and all(getattr(target, key) == getattr(other, key) for key in keys)
    )


def repeats(target: Target, earlier: Target, rows: Rows) -> bool:
    """Whether a row of another figure gives the same number for the same setting, M stated in one or in both."""
    if not same_setting(target, earlier) or target.oom != earlier.oom:
        return False
    if rows[target.row_id]["source"] == rows[earlier.row_id]["source"]:
        return False
    one, two = set(target.patches), set(earlier.patches)
    if not (one <= two or two <= one):
        return False
    if target.published_s is None or earlier.published_s is None:
        return target.oom
    tolerance = READING if target.digitized or earlier.digitized else ROUNDING
    return abs(target.published_s - earlier.published_s) <= tolerance * earlier.published_s


def contradicts(target: Target, other: Target, rows: Rows) -> bool:
    """Whether another figure has the same setting, M included, with a number more than a tenth away."""
    if not same_setting(target, other) or target.patches != other.patches:
        return False
    if rows[target.row_id]["source"] == rows[other.row_id]["source"]:
        return False
    if target.published_s is None or other.published_s is None:
        return target.oom != other.oom
    low, high = sorted((target.published_s, other.published_s))
    return high > (1 + CONTRADICTION) * low
