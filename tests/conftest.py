"""What tests of several packages share."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Generator, Iterator

import pytest

from experiments.spaced import spaced
from tests.ranks import Ranks


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Standing ranks."""
    with Ranks() as standing:
        yield standing


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported meanwhile lives to the end: millions of objects in which nobody need look for garbage."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `fast_cases(n)`, n of its cases stay in the fast suite, evenly spaced; the others are slow."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("fast_cases") and not item.get_closest_marker("slow"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for each in cases.values():
        marker = each[0].get_closest_marker("fast_cases")
        assert marker is not None
        fast = spaced(each, *marker.args)
        for item in each:
            if item not in fast:
                item.add_marker("slow")
