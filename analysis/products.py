"""Products of degrees over one folder of runs: what a rank holds, what it sends by axis, the distance to serial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import frame, sweep, tables
from analysis.style import label

AXES = ("data", "cfg", "pipe", "patch", "ring", "ulysses", "tensor")
"""Mesh axes, outermost first: the order of the ranks."""


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
    return table[
        [
            "method",
            "degrees",
            "devices",
            "status",
            "reason",
            *HELD,
            *columns.values(),
            "relative_error",
            "path",
        ]
    ]


HELD = ["param_bytes", "kv_bytes", "peak_bytes"]


def products_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table of products as words to read, units in the headings."""
    said = table.status.where(table.reason.isna(), table.status + ": " + table.reason.astype(str))
    return tables.as_text(
        table.assign(
            status=said, sent=pd.Series(map(sent, table.to_dict("records")), table.index, dtype=object)
        ),
        {
            "method": ("method", label),
            "degrees": ("degrees", str),
            "param_bytes": ("params MiB", tables.mib),
            "kv_bytes": ("KV MiB", tables.mib),
            "sent": ("sent MiB/step, by axis", str),
            "relative_error": ("latents vs serial", tables.small),
            "status": ("status", str),
        },
    )


def sent(row: Mapping[Any, Any]) -> str | None:
    """`cfg 0.02, pipe 0.38`: bytes by axis, outermost first; None of a run that has no bytes."""
    if row["status"] != "ok":
        return None
    counts = {axis: row[f"sent_{axis}_bytes_per_step"] for axis in AXES}
    told = [f"{axis} {tables.mib(count)}" for axis, count in counts.items() if not pd.isna(count) and count]
    return ", ".join(told) or "0.00"
