"""Products of degrees over one folder of runs: what a rank holds, what it sends by axis, the distance to serial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.presentation.columns import AXES, Column, Shown, mib, words
from analysis.runs import frame, sweep


def products(*folders: str | Path) -> pd.DataFrame:
    """One row per run: the degrees, the fullest rank's bytes, distance to serial.

    ``sent_AXIS_bytes_per_step`` is the busiest rank's on that axis, missing where no rank sends on it.
    """
    held = frame.ranks(*folders)
    runs = frame.runs(*folders)[["path", "degrees", "steps"]]
    table = sweep.methods(*folders).drop(columns="product").merge(runs, on="path")
    table["degrees"] = table.degrees.where(table.degrees.notna() | (table.status != "ok"), "1 device")
    columns = {f"sent_{axis}_bytes": f"sent_{axis}_bytes_per_step" for axis in AXES}
    sent = held.reindex(columns=["path", *columns]).groupby("path").max().rename(columns=columns)
    table = table.join(sent, on="path")
    for column in columns.values():
        table[column] = table[column] / table.steps
    kept = ["method", "degrees", "devices", "status", "reason", "param_bytes", "kv_bytes", "peak_bytes"]
    return table[[*kept, *columns.values(), "relative_error", "path"]]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table of products to read."""
    by_axis = pd.Series(map(sent, table.to_dict("records")), table.index, dtype=object)
    columns: Shown = [
        "method",
        "degrees",
        "param_bytes",
        "kv_bytes",
        Column("sent", "sent MiB/step, by axis"),
    ]
    return words(table.assign(sent=by_axis), [*columns, "relative_error", "status"])


def sent(row: Mapping[Any, Any]) -> str | None:
    """`cfg 0.02, pipe 0.38`: bytes by axis, outermost first; None of a run that has no bytes."""
    if row["status"] != "ok":
        return None
    counts = {axis: row[f"sent_{axis}_bytes_per_step"] for axis in AXES}
    parts = [f"{axis} {mib(count)}" for axis, count in counts.items() if not pd.isna(count) and count]
    return ", ".join(parts) or "0.00"
