"""Which cases of a test are in the fast suite."""

from __future__ import annotations

from pathlib import Path

import pytest

MODULE = """
import pytest

@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("case", [0, 1, pytest.param(2, marks=pytest.mark.slow), 3, 4])
def test_cases(case):
    pass

def test_alone():
    pass
"""


def test_so_many_cases_stay_and_what_is_slow_anyway_counts_for_none(tmp_path: Path) -> None:
    found = []

    class Collected:
        def pytest_collection_finish(self, session: pytest.Session) -> None:
            found.extend(item.name for item in session.items if not item.get_closest_marker("slow"))

    (tmp_path / "test_module.py").write_text(MODULE)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_collection_modifyitems")
    pytest.main(
        ["--collect-only", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)], [Collected()]
    )
    assert found == ["test_cases[1]", "test_cases[4]", "test_alone"]
