"""Imports run one way: no module of the project imports, however indirectly, one that imports it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from experiments.closure import PACKAGES, imports, modules
from tests.experiments.commands import ROOT

FLOORS = (
    ("errors", "config"),
    ("records", "runs.directory", "command.check", "command.compose", "command.measures", "runs.server"),
    ("runs.device", "methods", "models.model", "models.inputs", "runs.report", "runs.peaks", "runs.progress"),
    ("runs.rank", "runs.agent", "runs.simulate", "runs.plan"),
    ("runs.check", "runs.launch"),
    ("runs.job", "command.cli"),
)
"""The command's own modules, lowest first; a module imports from its floor and those below it."""


@cache
def graph() -> dict[str, set[str]]:
    known = modules(ROOT, (*PACKAGES, "analysis"))
    return {name: (imports(path.read_bytes()) & known.keys()) - {name} for name, path in known.items()}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, if there are any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_there_is_no_circle() -> None:
    assert circle(graph()) == []


def test_a_circle_is_found_in_functions_too() -> None:
    sources = {"a": b"def f():\n    from b import x", "b": b"if TYPE_CHECKING:\n    import a"}
    found = circle({name: {*imports(source)} & sources.keys() for name, source in sources.items()})
    assert sorted(set(found)) == ["a", "b"]


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_a_floor_imports_none_above_it(floor: int) -> None:
    above = {f"experiments.{name}" for names in FLOORS[floor + 1 :] for name in names}
    found = graph()
    assert [name for name in FLOORS[floor] if found[f"experiments.{name}"] & above] == []
