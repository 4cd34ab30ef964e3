"""Plans of videos, read: the verdict on repeated reads of K, V turns where they take longer than the arithmetic."""

from __future__ import annotations

import pytest

from analysis.predicted.video import tabulate
from analysis.records.study import Record
from tests.analysis.predicted.test_planning import frame, row


@pytest.mark.parametrize(("read_s", "verdict"), [(1.5, "**not confirmed**"), (4.0, "**confirmed**")])
def test_the_worst_setting_of_pipefusion_decides(read_s: float, verdict: str) -> None:
    reads = {"model": "toy", "attention_bytes": 1 << 30, "attention_arithmetic_s": 2.0}
    rows = frame(
        row("tensor", "tensor 8", 2.0, 8.0, **reads, attention_traffic_s=9.0),
        row("pipefusion", "pipe 8", 2.5, 1.0, **reads, attention_traffic_s=0.5),
        row("pipefusion", "pipe 8", 3.0, 1.0, **reads, attention_traffic_s=read_s, patches=8),
    )
    config = {"model": {"frames": None, "architecture": {"frames": 121}}}
    (table,) = tabulate([Record({"config": config}, rows)])
    assert verdict in table.text
    assert "exact, tensor 8" in table.text and "25.0 %" in table.text
