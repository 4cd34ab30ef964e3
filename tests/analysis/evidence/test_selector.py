"""The choice of the predicted fastest, on made-up groups whose answer is known."""

from __future__ import annotations

from math import inf
from typing import Any

import pandas as pd
import pytest

from analysis.evidence import selector
from analysis.evidence.published import read_row


def row(line: int, method: str, published: float | None, predicted: float, **more: Any) -> dict[str, Any]:
    """A joined prediction; published None is out of memory."""
    return {
        "row_id": f"latency.csv:{line}", "cluster": "l40_pcie", "model": "pixart_alpha", "resolution": 1024,
        "devices": 8, "steps": 20, "method": method, "patches": None, "printed_warmup": None, "status": "ok",
        "published_s": published, "published_oom": published is None, "predicted_s": predicted,
        "predicted_oom": False, "role": "prediction", "doubt": "", "duplicate_of": None, "source": "a figure",
    } | more  # fmt: skip


def judged(*rows: dict[str, Any], fitted: tuple[str, ...] = ()) -> pd.DataFrame:
    table = pd.DataFrame(rows).astype({"published_s": float, "predicted_s": float, "printed_warmup": "Int64"})
    published = {one["row_id"]: read_row(one["row_id"], {"source": one["source"]}) for one in rows}
    return selector.groups(table, published, {"l40_pcie": set(fitted)})


def test_regret_is_what_the_choice_costs_over_the_fastest():
    (group,) = judged(row(2, "ring", 3.0, 1.0), row(3, "pipefusion", 2.0, 1.5, patches=8)).to_dict("records")
    assert (group["chosen"], group["fastest_setting"]) == ("Ring", "PipeFusion M=8")
    assert group["regret"] == pytest.approx(0.5) and group["random_regret"] == pytest.approx(0.25)


def test_a_group_is_of_one_source_and_of_settings_that_may_be_right():
    pair = (row(2, "ring", 1.0, 1.0), row(3, "ulysses", 2.0, 2.0))
    assert judged(*pair).regret.tolist() == [0.0]
    apart = [
        {"source": "another"},
        {"doubt": "swapped"},
        {"role": "calibration"},
        {"printed_warmup": 4},
        {"devices": 1},
    ]
    for other in apart:
        assert judged(pair[0], pair[1] | other).empty
    assert judged(*(one | {"duplicate_of": "latency.csv:9"} for one in pair)).empty


def test_choosing_what_ran_out_of_memory_is_counted_by_itself():
    oom = judged(row(2, "distrifusion", None, 1.0), row(3, "ring", 2.0, 1.5))
    assert oom.regret.tolist() == [inf]
    whole = next(selector.summary(oom))
    assert (whole["hits"], whole["out_of_memory"]) == (0, 1) and pd.isna(whole["worst_regret"])


def test_a_source_that_calibrated_the_cluster_is_left_out_of_those_apart():
    rows = (
        row(2, "ring", 1.0, 1.0),
        row(3, "ulysses", 2.0, 2.0),
        row(4, "serial", 9.0, 9.0, role="calibration"),
    )
    both = [{line["groups"]: line["count"] for line in selector.summary(judged(*rows, fitted=fitted))}
            for fitted in ((), ("latency.csv:4",))]  # fmt: skip
    assert [each[selector.APART] for each in both] == [1, 0]
    assert [each["all groups"] for each in both] == [1, 1]


def test_the_line_and_the_tables_agree():
    found = judged(row(2, "ring", 1.0, 1.0), row(3, "ulysses", 2.0, 2.0))
    lines, groups, line = selector.tabulate(found)
    assert "1 of 1 groups" in line.text and "| all groups | 1 | 1 | 100.0 % |" in lines.text
    assert groups.suffix == "_groups" and "| 0.0 % | a figure |" in groups.text
