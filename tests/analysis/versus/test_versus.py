"""Every published row has a line, and a line says what kind of thing stands on our side."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.output import missing
from analysis.outputs.versus import OUTPUTS
from analysis.paper import ratios
from analysis.paper.facts import published
from analysis.paper.ratios import Timed
from analysis.table1 import Units
from analysis.versus import lines as versus
from analysis.versus import memory as versus_memory
from analysis.versus import table1 as versus_table1
from analysis.versus.latency import memory_said

RESULTS = Path(__file__).resolve().parents[3] / "results"


@pytest.fixture(scope="module")
def lines() -> pd.DataFrame:
    """Of the committed records."""
    if missing(OUTPUTS[0], RESULTS):
        pytest.skip(f"no {missing(OUTPUTS[0], RESULTS)}")
    return versus.table(versus.load(RESULTS))


def test_no_published_row_is_missing_and_none_is_there_twice(lines: pd.DataFrame) -> None:
    rows = published(RESULTS / "published")
    counts = lines.row.value_counts()
    assert set(counts.index) == set(rows)
    for row_id, row in rows.items():
        assert counts[row_id] == (1 if "metric" in row else len(versus_table1.COLUMNS)), row_id


def test_every_line_has_a_known_kind_and_says_something(lines: pd.DataFrame) -> None:
    assert set(lines.kind) <= set(versus.KINDS)
    assert (lines.reason != "").all()
    assert lines[lines.kind == "not testable"].ours.isna().all()
    assert lines[lines.kind == "not testable"].error.isna().all()


def test_what_is_not_testable_uses_no_record_and_all_else_but_closed_forms_names_one(
    lines: pd.DataFrame,
) -> None:
    alone = lines.record == ""
    assert (alone | (lines.kind != "not testable")).all()
    assert lines[alone & (lines.kind != "not testable")].metric.tolist() == ["effective computation ratio"]
    for record in set(lines.record) - {""}:
        assert (RESULTS / record).is_file()


def test_a_row_that_its_cluster_is_fitted_on_is_calibration(lines: pd.DataFrame) -> None:
    known = versus.load(RESULTS).predictions
    fitted = {
        row_id for one in known.made.values() for row_id in one["calibrated_on"] if row_id in known.made
    }
    own = {row_id for row_id in fitted if row_id in known.made[row_id]["calibrated_on"]}
    assert own
    assert set(lines[lines.row.isin(own)].kind) == {"calibration"}
    assert "calibration" not in set(lines[~lines.record.str.contains("predictions")].kind)


def test_errors_are_of_the_numbers_that_are_there(lines: pd.DataFrame) -> None:
    printed, ours = (pd.to_numeric(lines[side], "coerce") for side in ("published", "ours"))
    compared = lines.error.notna()
    assert compared[lines.record.str.contains("predictions") & printed.notna() & ours.notna()].all()
    error = ours / printed.where(printed.notna(), 1) - 1  # of Table 1, ours is the ratio itself
    assert ((error - lines.error).abs()[compared] < 1e-4 * (1 + lines.error.abs())[compared]).all()
    assert lines[lines.published == "OOM"].error.isna().all()


def test_the_summary_counts_every_line(lines: pd.DataFrame) -> None:
    assert versus.summary(lines).lines.sum() == len(lines)


def test_the_same_records_give_the_same_bytes(lines: pd.DataFrame, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in versus.save(lines, tmp_path / "a", "x")]
    again = versus.table(versus.load(RESULTS))
    assert first == [path.read_bytes() for path in versus.save(again, tmp_path / "b", "x")]


def claim(**more: str) -> dict[str, str]:
    """A row of claims.csv."""
    row = {
        "hardware": "8xL40-48GB",
        "interconnect": "PCIe",
        "model": "PixArt",
        "resolution": "1024",
        "steps": "20",
    }
    row |= {"n_devices": "8", "method": "PipeFusion", "setting": "vs 1 GPU", "metric": "speedup", "unit": "x"}
    return row | {"value": "4"} | more


SECONDS = {("serial", 1): 80.0, ("pipefusion", 8): 16.0, ("ring", 8): 20.0, ("ulysses", 8): 32.0}


def clock(method: str, devices: int) -> Timed | None:
    value = SECONDS.get((method, devices))
    return None if value is None else Timed(value, method, f"{method}{devices}")


def test_a_speedup_is_over_one_device_or_over_the_fastest_rival() -> None:
    assert ratios.speedup_of(claim(), clock).value == 5.0
    second = ratios.speedup_of(claim(setting="vs second best"), clock)
    assert (second.value, second.origins) == (1.25, ("ring8", "pipefusion8"))
    hybrid = claim(method="cfg=2,pp=4")
    assert ratios.speedup_of(hybrid, clock).value is None
    assert ratios.uses_hybrid(hybrid)
    assert ratios.uses_hybrid(claim(setting="vs best USP (ulysses=4 ring=2)"))


def test_communication_is_what_is_beyond_an_nth() -> None:
    cost = claim(metric="communication cost", setting="T8-T1/8", unit="s")
    share = claim(metric="communication share", setting="(T8-T1/8)/T8", unit="%", method="SP")
    assert ratios.ratio_of(cost, clock).value == 6.0
    assert ratios.ratio_of(share, clock).value == 50.0


def test_the_effective_ratio_is_what_filling_and_draining_leave() -> None:
    row = claim(
        metric="effective computation ratio", n_devices="4", setting="M=N=4,S=50: M*S/(M*S+N-1)", unit="%"
    )
    assert ratios.effective_of(row | {"setting": "M=4,S=25"}).value == pytest.approx(100 * 100 / 103)


def test_an_earlier_formula_of_table_1_is_put_in_numbers() -> None:
    units = Units(a=3.0, p=100.0, layers=5, n=2, m=4)
    for cell, bytes_ in {
        "(2/N)A=QO/N": 3.0,
        "(4/N)A=(QO+KV)/N": 6.0,
        "(A/M)L": 3.75,
        "AL": 15.0,
        "0": 0.0,
    }.items():
        formula = versus_table1.formula_of(cell)
        assert formula is not None and versus_table1.COSTS[formula](units) == bytes_
    assert versus_table1.formula_of("A/N [shifted cell, sic]") is None


def test_a_size_on_disk_is_read_as_the_type_that_is_nearest() -> None:
    row = {"value": "4", "metric": "DiT on disk"}
    assert versus_memory.on_disk(row, 10**9).ours == 4.0
    assert "float32, GB" in versus_memory.on_disk(row, 10**9).reason
    assert "16 bits, GiB" in versus_memory.on_disk(row, 2**31).reason


def test_running_out_of_memory_is_compared_too() -> None:
    class Row:
        published_oom, predicted_oom = True, True

    assert memory_said(Row) == "both out of memory"
    Row.predicted_oom = False
    assert memory_said(Row) == "out of memory as published only"


def test_lines_of_published_numbers_are_named_shortly() -> None:
    found = pd.DataFrame({"row": ["a.csv:2", "a.csv:3", "b.csv:9"], "kind": "not testable", "reason": "why"})
    assert versus.reasons_text(found).iloc[0].tolist() == ["why", "a.csv 2–3; b.csv 9"]
