"""The committed records, read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.evidence.records import Evidence
from analysis.output import missing
from analysis.outputs.evidence import OUTPUTS

RESULTS = Path(__file__).resolve().parents[3] / "results"


@pytest.fixture(scope="session")
def evidence() -> Evidence:
    (output,) = (one for one in OUTPUTS if one.name == "published_vs_ours")
    if missing(output, RESULTS):
        pytest.skip(f"no {missing(output, RESULTS)}")
    return Evidence(RESULTS)
