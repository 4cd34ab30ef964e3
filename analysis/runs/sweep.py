"""Tables over one folder of runs: methods beside each other, devices, and the fullest device of each run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.presentation.looks import in_order
from analysis.runs import fidelity, frame

HELD = ["param_bytes", "kv_bytes", "buffer_bytes", "comm_bytes", "peak_bytes", "sent_bytes"]
METHOD_COLUMNS = ["method", "devices", "product", "patches", "warmup", "status", "reason", "latency_s"]
METHOD_COLUMNS += ["spread_s", "latency_ratio", *HELD[:-1], "sent_bytes_per_step", "relative_error"]
METHOD_COLUMNS += ["psnr_db", "path", "ranks"]
AMOUNTS = ["param_bytes", "model_share", "block_share", "kv_bytes", "sent_bytes", "wait_s"]
METHODS_SHOWN = ["method", "ranks", "latency_s", "latency_ratio", "param_bytes", "kv_bytes", "peak_bytes"]
METHODS_SHOWN += ["sent_bytes_per_step", "relative_error", "psnr_db", "status"]
DEVICES_SHOWN = ["method", "rank", "layers", *AMOUNTS]
FULLEST_SHOWN = ["method", "ranks", "layer_count", *AMOUNTS]
"""What of each table is for readers; the csv has all of it."""


def methods(*folders: str | Path) -> pd.DataFrame:
    """One row a run: latency in seconds and over serial, the fullest rank's bytes, distance to serial.

    ``*_bytes`` are the largest over the run's ranks, each taken on its own; ``sent_bytes_per_step`` is the
    busiest rank's, for all pictures of the run together.
    """
    runs, held = frame.runs(*folders), frame.ranks(*folders)
    if runs.empty:
        return runs
    runs = fidelity.to_serial(runs)
    fullest = held.groupby("path")[HELD].max() if not held.empty else pd.DataFrame(columns=HELD)
    runs = runs.join(fullest, on="path")
    runs["sent_bytes_per_step"] = runs.sent_bytes / runs.steps
    runs = runs.astype(dict.fromkeys([*HELD[:-1], "devices"], "Int64"))
    return in_order(runs.assign(ranks=ranks(runs)))[METHOD_COLUMNS]


def devices(*folders: str | Path, method: str | None = None) -> pd.DataFrame:
    """One row a rank: layers, bytes held, shares of the model's parameters, bytes sent, seconds waited.

    ``model_share`` is of all parameters, ``block_share`` of those in the blocks; both as fractions of what
    the serial run of the same task holds, and missing when there is none.
    """
    runs, held = frame.runs(*folders), frame.ranks(*folders)
    if held.empty:
        return held
    serial = held.path.map(fidelity.to_serial(runs).set_index("path").serial_path)
    whole = held.groupby("path")[["param_bytes", "block_param_bytes"]].max().reindex(serial)
    held["model_share"] = held.param_bytes / whole.param_bytes.to_numpy()
    held["block_share"] = held.block_param_bytes / whole.block_param_bytes.to_numpy()
    return in_order(held if method is None else held[held.method == method])


def fullest(table: pd.DataFrame) -> pd.DataFrame:
    """Of a devices table, the most that any rank of each run holds, sends and waits, each column on its own."""
    if table.empty:
        return table
    most = ["layer_count", "param_bytes", "model_share", "block_share", "kv_bytes", "sent_bytes", "wait_s"]
    own = ["path", "method", "devices", "product"]
    most_of = table.groupby(own, sort=False, as_index=False, dropna=False)[most].max()
    return most_of.assign(ranks=ranks(most_of))


def ranks(table: pd.DataFrame) -> pd.Series:
    """How many ranks share a run; of a product the degrees, `cfg 2 x pipe 2`."""
    return table["product"].where(table["product"].notna(), table.devices.astype(str))
