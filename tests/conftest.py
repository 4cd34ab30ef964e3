"""What tests of several packages share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.ranks import Ranks


@pytest.fixture(scope="session")
def ranks() -> Iterator[Callable[[int], Ranks]]:
    """Standing ranks by their number."""
    with ExitStack() as stack:
        yield cache(lambda size: stack.enter_context(Ranks(size)))
