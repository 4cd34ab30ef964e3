"""The table of columns: one row a name, and what frames become by it."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.presentation import columns
from analysis.presentation.columns import COLUMNS, Column, column, typed, words

MIB = 2**20


def test_no_name_is_written_down_twice() -> None:
    assert len(COLUMNS) == len(columns._ALL)


def test_words_write_units_in_headings_and_dashes_for_what_is_missing() -> None:
    cells = {"method": ["pipefusion", "serial"], "devices": [4.0, None], "param_bytes": [1.5 * MIB, None]}
    cells |= {"latency_s": [2.0, float("inf")], "model_share": [0.25, None], "predicted": [True, None]}
    frame = pd.DataFrame(cells)
    text = words(frame, frame.columns)
    assert list(text) == ["method", "N", "params MiB", "latency s", "of the model", "predicted"]
    assert text.iloc[0].tolist() == ["PipeFusion", "4", "1.50", "2.00", "25.0 %", "yes"]
    assert text.iloc[1].tolist() == ["Serial", "–", "–", "∞", "–", "–"]


def test_a_unit_changes_heading_and_format() -> None:
    text = words(pd.DataFrame({"kv_bytes": [3 * 2**30]}), [column("kv_bytes", unit="GiB")])
    assert text.to_dict("list") == {"KV GiB": ["3.00"]}


def test_the_reason_stands_behind_a_status() -> None:
    frame = pd.DataFrame({"status": ["ok", "skipped"], "reason": [None, "too few layers"]})
    assert words(frame, ["status"]).status.tolist() == ["ok", "skipped: too few layers"]


def test_an_own_column_needs_no_row_in_the_table() -> None:
    own = Column("gain", "gain", format="{:.1f}".format)
    assert words(pd.DataFrame({"gain": [2]}), [own]).gain.tolist() == ["2.0"]


@pytest.mark.parametrize("make", [lambda frame: words(frame, ["latncy_s"]), typed])
def test_an_unknown_name_is_named(make: object) -> None:
    with pytest.raises(KeyError, match="latncy_s"):
        make(pd.DataFrame({"latncy_s": [1.0]}))  # type: ignore[operator]


def test_records_keep_their_kinds_where_cells_are_missing() -> None:
    rows = [
        {"method": "serial", "patches": None, "latency_s": 1, "exact": True, "reason": None},
        {"method": "pipefusion", "patches": 4, "latency_s": None, "exact": None, "reason": "why"},
    ]
    frame = typed(pd.DataFrame(rows))
    kinds = {"method": "str", "patches": "Int64", "latency_s": "float64", "exact": "boolean", "reason": "str"}
    assert frame.dtypes.astype(str).to_dict() == kinds
    assert frame.patches.tolist() == [pd.NA, 4] and frame.reason.isna().tolist() == [True, False]
    assert typed(frame.iloc[:0]).dtypes.equals(frame.dtypes)


def test_typed_frames_come_back_from_parquet(tmp_path: object) -> None:
    frame = typed(pd.DataFrame({"patches": [None, 4], "exact": [None, True], "reason": [None, "why"]}))
    frame.to_parquet(f"{tmp_path}/rows.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(f"{tmp_path}/rows.parquet"), frame)
