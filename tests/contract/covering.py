"""A few cases of a grid that meet every combination of two settings which any of its cases has, or of three."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, fields
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import combinations
from sys import intern
from typing import Any

import pytest

from experiments.methods import METHODS
from pipefusion.core.parallel import Parallel
from tests.cases import Case
from tests.contract.oracle import label

Met = Callable[[Case], set[tuple[str, ...]]]
OWN = {key.name for method in METHODS.values() for key in fields(method.Config)} | {*asdict(Parallel())}
"""What is the method's: its name, its keys, its degrees."""
UNEVEN = (9, 11)
"""Token rows and columns that few degrees divide."""


def met(case: Case, strength: int, apart: Set[str] = frozenset()) -> set[tuple[str, ...]]:
    """Combinations of so many settings, but none of the model with one that is `apart`.

    A degree counts as shared or not, W as none, some or all of the steps, M as one or more, a list of stages as one, a
    size as uneven or not.
    """
    settings: dict[str, Any] = {axis: degree > 1 for axis, degree in asdict(case.parallel).items()}
    settings |= {key: str(value) for key, value in case.method.items()}
    if "warmup" in case.method:
        settings["warmup"] = min(case.method["warmup"], 1) + (case.method["warmup"] == case.steps)
    if "patches" in case.method:
        settings["patches"] = case.method["patches"] > 1
    if isinstance(case.method.get("split"), list):
        settings["split"] = "list"
    settings |= {"name": case.name, "scheduler": case.scheduler, "architecture": str(case.architecture)}
    settings |= {"guidance": case.guidance, "images": case.images, "padded": case.padded}
    settings["size"] = case.size == UNEVEN
    words = {key: intern(f"{key}={settings[key]}") for key in sorted(settings)}  # which hash once
    with_model = combinations([word for key, word in words.items() if key not in apart], strength - 1)
    return {*combinations(words.values(), strength), *((*each, case.model) for each in with_model)}


pairs = partial(met, strength=2, apart={"split"})
pairs_apart = partial(met, strength=2, apart=OWN - {"pipe"})
triples = partial(met, strength=3, apart={"split"})


def cover(cases: Sequence[Case], fast: Met = pairs, slow: Met | None = triples) -> list[Any]:
    """The cases, found greedily, that meet all that `fast` names, and as slow tests those that `slow` needs besides."""
    chosen: dict[int, bool] = {}
    for name, is_slow in ((fast, False), (slow, True)):
        each = [name(case) if name else set() for case in cases]
        left = set().union(*each).difference(*(each[index] for index in chosen))
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
