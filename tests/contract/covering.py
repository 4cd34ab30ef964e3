"""A few cases of a grid that have every pair of settings which any of its cases has; the others are slow tests."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import asdict
from itertools import combinations
from typing import Any

import pytest

from tests.cases import Case
from tests.contract.oracle import label

Pair = tuple[tuple[str, Any], tuple[str, Any]]


def pairs(case: Case, apart: Set[str]) -> set[Pair]:
    """A degree counts as shared or not, W as none, some or all of the steps, M as one or more."""
    settings: dict[str, Any] = {axis: degree > 1 for axis, degree in asdict(case.parallel).items()}
    settings |= {key: str(value) for key, value in case.method.items() if key not in ("warmup", "patches")}
    settings |= {
        "model": case.model,
        "name": case.name,
        "scheduler": case.scheduler,
        "heads": str(case.architecture),
    }
    settings |= {"guidance": case.guidance, "images": case.images, "size": case.size, "padded": case.padded}
    if "warmup" in case.method:
        settings["warmup"] = min(case.method["warmup"], 1) + (case.method["warmup"] == case.steps)
    if "patches" in case.method:
        settings["patches"] = case.method["patches"] > 1
    found = combinations(sorted(settings.items(), key=str), 2)
    return {(one, other) for one, other in found if {one[0], other[0]} != apart}


def cover(cases: Sequence[Case], apart: Set[str] = frozenset()) -> list[Any]:
    """The cases as parameters of a test; slow are those whose pairs the others cover, found greedily.

    Two settings that are `apart` need not meet in every combination.
    """
    each = [pairs(case, apart) for case in cases]
    left = set().union(*each)
    fast: set[int] = set()
    while left:
        best = max(range(len(cases)), key=lambda index: len(each[index] & left))
        fast.add(best)
        left -= each[best]
    return [
        pytest.param(case, id=label(case), marks=[] if index in fast else [pytest.mark.slow])
        for index, case in enumerate(cases)
    ]
