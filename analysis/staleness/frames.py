"""How much a clip changes from step to step, and what stale K, V do to attention, latent frame by latent frame."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from analysis.presentation.columns import Column, Shown, shares, words
from analysis.presentation.looks import label
from analysis.staleness.tables import QUANTITIES, Record

NOTE = """
Clips of {model}, S = {steps}, guidance {guidance:g}, {pictures} a kind, cut over latent frames (column by column).
Changes: ||x_t - x_(t-1)|| / ||x_t|| of serial, the mean over steps and layers. Error: ||stale - fresh|| / ||fresh|| of
attention's output within a method's own run, the mean over displaced steps and layers, of the frames of each job.
"""


def by_frame(records: Mapping[str, Record]) -> pd.DataFrame:
    """One row a kind of clips and quantity: its change in each latent frame; then the error of attention by method."""
    found = []
    for kind, record in records.items():
        for quantity in QUANTITIES:
            rows = record.redundancy[record.redundancy.quantity == quantity]
            found.append((kind, f"change of {QUANTITIES[quantity]}", rows.groupby("row_start").change.mean()))
        for method, rows in record.error[record.error.k_error.notna()].groupby("method", sort=False):
            found.append((kind, f"error of attention, {label(str(method))}", spread(rows)))
    return pd.DataFrame(
        [
            {"clips": kind, "quantity": what} | {f"frame_{frame}": mean for frame, mean in means.items()}
            for kind, what, means in found
        ]
    )


def spread(rows: pd.DataFrame) -> pd.Series:
    """The mean error of the jobs that have each latent frame."""
    frames = range(rows.row_stop.max() if len(rows) else 0)
    covers = {frame: (rows.row_start <= frame) & (frame < rows.row_stop) for frame in frames}
    means = {frame: rows.attention_error[inside].mean() for frame, inside in covers.items() if inside.any()}
    return pd.Series(means, dtype=float)


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """To read."""
    frames = [str(name) for name in rows if str(name).startswith("frame_")]
    columns: Shown = [Column("clips", "clips"), Column("quantity", "what")]
    return words(rows, [*columns, *shares(**{name: name.replace("_", " ") for name in frames})])
