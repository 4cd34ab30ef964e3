"""A few of the inputs of `python -m tests.fuzz`, which tries them all: each is refused in a line, or right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import configurations, files
from tests.fuzz.verdict import FAULTS, REFUSED, Verdict

SOME = [(), ("method=pipefusion",), ("measure=plan",), ("cluster=l40_pcie",)]


MAKE: dict[str, tuple[Callable[[], list[Any]], Callable[[Any], Verdict]]] = {
    "configurations": (lambda: [*configurations.cases(SOME)][::31], configurations.verdict),
    "files": (lambda: [*files.cases()][::13], files.verdict),
}


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.slow
def test_a_few_inputs_that_cannot_be_meant(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, judge = MAKE[kind]
    found = {str(case): judge(case) for case in make()}
    assert {case: verdict for case, verdict in found.items() if verdict.kind in FAULTS} == {}
    assert Counter(verdict.kind for verdict in found.values())[REFUSED] > len(found) / 2
