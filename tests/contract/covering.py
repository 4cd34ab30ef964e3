"""A few cases of a grid that meet every combination of two settings which any of its cases has, or of three."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, fields
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import combinations
from typing import Any

import pytest

from experiments.methods import METHODS
from pipefusion.core.parallel import Parallel
from tests.cases import Case
from tests.contract.oracle import label

Met = Callable[[Case], set[tuple[Any, ...]]]
OWN = {key.name for method in METHODS.values() for key in fields(method.Config)} | {*asdict(Parallel())}
"""What is the method's: its name, its keys, its degrees."""


def settings(case: Case) -> list[tuple[str, Any]]:
    """All of a case but its model.

    A degree counts as shared or not, W as none, some or all of the steps, M as one or more.
    """
    found: dict[str, Any] = {axis: degree > 1 for axis, degree in asdict(case.parallel).items()}
    found |= {key: str(value) for key, value in case.method.items()}
    if "warmup" in case.method:
        found["warmup"] = min(case.method["warmup"], 1) + (case.method["warmup"] == case.steps)
    if "patches" in case.method:
        found["patches"] = case.method["patches"] > 1
    found |= {"name": case.name, "scheduler": case.scheduler, "heads": str(case.architecture)}
    found |= {"guidance": case.guidance, "images": case.images, "size": case.size, "padded": case.padded}
    return sorted(found.items(), key=str)


def met(case: Case, apart: Set[str]) -> set[tuple[Any, ...]]:
    """Combinations of two settings, but none of the model with one that is `apart`."""
    found = settings(case)
    with_model = ((each, ("model", case.model)) for each in found if each[0] not in apart)
    return {*combinations(found, 2), *with_model}


pairs = partial(met, apart={"split"})
pairs_apart = partial(met, apart=OWN)


def triples(case: Case) -> set[tuple[Any, ...]]:
    """Combinations of three settings; of the model with one."""
    return {*combinations(settings(case), 3), *met(case, set())}


def cover(cases: Sequence[Case], fast: Met = pairs, slow: Met | None = triples) -> list[Any]:
    """The cases, found greedily, that meet all that `fast` names, and as slow tests those that `slow` needs besides."""
    chosen: dict[int, bool] = {}
    for name, is_slow in ((fast, False), (slow, True)):
        each = [name(case) if name else set() for case in cases]
        left = set().union(*each) - set().union(*(each[index] for index in chosen))
        ranked = [(-len(found), index) for index, found in enumerate(each)]
        heapify(ranked)
        while left:  # what a case adds only ever falls, so most need no second look
            _, best = heappop(ranked)
            gain = len(each[best] & left)
            if ranked and -gain > ranked[0][0]:
                heappush(ranked, (-gain, best))
            else:
                chosen[best] = is_slow
                left -= each[best]
    return [
        pytest.param(cases[index], id=label(cases[index]), marks=[pytest.mark.slow] * chosen[index])
        for index in sorted(chosen)
    ]
