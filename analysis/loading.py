"""What ranks need in memory to load their part of a checkpoint: the fullest rank of each method."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.style import in_order, label

MIB = 2**20


def fullest(folder: Path) -> pd.DataFrame:
    """One row a method: the largest shard, peak and ratio of its ranks, each on its own, and their median seconds."""
    rows = pd.read_csv(folder / "loading.csv")
    rows = rows[rows.status == "ok"]
    groups = rows.groupby(["method", "devices"], as_index=False)
    columns = {"param_bytes": "max", "peak_bytes": "max", "ratio": "max", "seconds": "median"}
    return in_order(groups.agg(columns))


def fullest_text(table: pd.DataFrame) -> pd.DataFrame:
    """`fullest` to read."""
    return pd.DataFrame(
        {
            "method": [label(name) for name in table.method],
            "ranks": table.devices.astype(str),
            "shard MiB": [f"{size / MIB:.1f}" for size in table.param_bytes],
            "peak MiB": [f"{size / MIB:.1f}" for size in table.peak_bytes],
            "peak / shard": [f"{ratio:.3f}" for ratio in table.ratio],
            "median s": [f"{seconds:.1f}" for seconds in table.seconds],
        }
    )
