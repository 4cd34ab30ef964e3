"""Every published row has a line, and a line says what kind of thing stands on our side."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.evidence import tables
from analysis.evidence.beside import lines as all_lines
from analysis.evidence.beside import memory_said
from analysis.evidence.records import Evidence
from analysis.memory.table1 import COLUMNS, COSTS, Units, parse_formula


@pytest.fixture(scope="module")
def lines(evidence: Evidence) -> pd.DataFrame:
    """Of the committed records."""
    return tables.beside(list(all_lines(evidence)))


def test_no_published_row_is_missing_and_none_is_there_twice(lines: pd.DataFrame, evidence: Evidence) -> None:
    rows = evidence.rows
    counts = lines.row.value_counts()
    assert set(counts.index) == set(rows)
    for row_id in rows:
        assert counts[row_id] == (len(COLUMNS) if row_id.startswith("table1") else 1), row_id


def test_every_line_has_a_known_kind_and_says_something(lines: pd.DataFrame) -> None:
    assert set(lines.kind) <= set(tables.OURS)
    assert (lines.reason != "").all()
    assert lines[lines.kind == "not testable"].ours.isna().all()
    assert lines[lines.kind == "not testable"].error.isna().all()


def test_what_is_not_testable_uses_no_record_and_all_else_but_closed_forms_names_one(
    lines: pd.DataFrame, evidence: Evidence
) -> None:
    alone = lines.record == ""
    assert (alone | (lines.kind != "not testable")).all()
    assert lines[alone & (lines.kind != "not testable")].metric.tolist() == ["effective computation ratio"]
    for record in set(" ".join(lines.record).split()):
        assert (evidence.results / record).exists()


def test_a_row_that_its_cluster_is_fitted_on_is_calibration(lines: pd.DataFrame, evidence: Evidence) -> None:
    own = {row_id for row_id, one in evidence.made.items() if row_id in one["calibrated_on"]}
    assert own
    assert set(lines[lines.row.isin(own)].kind) == {"calibration"}
    assert "calibration" not in set(lines[~lines.record.str.contains("records/published")].kind)


def test_errors_are_of_the_numbers_that_are_there(lines: pd.DataFrame) -> None:
    printed, ours = (pd.to_numeric(lines[side], "coerce") for side in ("published", "ours"))
    compared = lines.error.notna()
    assert compared[lines.record.str.contains("predictions") & printed.notna() & ours.notna()].all()
    error = ours / printed.where(printed.notna(), 1) - 1  # of Table 1, ours is the ratio itself
    assert ((error - lines.error).abs()[compared] < 1e-4 * (1 + lines.error.abs())[compared]).all()
    assert lines[lines.published == "OOM"].error.isna().all()


def test_the_summary_counts_every_line(lines: pd.DataFrame) -> None:
    assert tables.by_kind(lines).lines.sum() == len(lines)


def test_an_earlier_formula_of_table_1_is_put_in_numbers() -> None:
    units = Units(a=3.0, p=100.0, layers=5, n=2, m=4)
    for cell, bytes_ in {
        "(2/N)A=QO/N": 3.0,
        "(4/N)A=(QO+KV)/N": 6.0,
        "(A/M)L": 3.75,
        "AL": 15.0,
        "0": 0.0,
    }.items():
        formula = parse_formula(cell)
        assert formula is not None and COSTS[formula](units) == bytes_
    assert parse_formula("A/N [shifted cell, sic]") is None


def test_running_out_of_memory_is_compared_too() -> None:
    assert memory_said(True, True) == "both out of memory"
    assert memory_said(True, False) == "out of memory as published only"
    assert memory_said(False, False) == ""


def test_lines_of_published_numbers_are_named_shortly() -> None:
    found = pd.DataFrame({"row": ["a.csv:2", "a.csv:3", "b.csv:9"], "kind": "not testable", "reason": "why"})
    assert tables.reasons(found).iloc[0].tolist() == ["why", "a.csv 2–3; b.csv 9"]
