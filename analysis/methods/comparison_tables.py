"""Tables of all methods beside each other: every setting, each method as it is by default, what beats PipeFusion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.evidence.intervals import SHARE
from analysis.methods import comparison
from analysis.methods.comparison import BOTH, WORLD
from analysis.presentation import tables
from analysis.presentation.columns import (
    COUNT,
    NUMBER,
    Column,
    Shown,
    column,
    percent,
    ratios,
    shares,
    texts,
    words,
)
from analysis.presentation.tables import Table
from analysis.records.study import Record, plain_rows

DEVICES, STEPS, SMALL, LARGE = 4, 20, 1024, 2048
"""The task of the short table, with seconds of both sizes."""
ERROR = column("relative_error", unit="%", format=percent)
ORDERS = {"plain": "", "last": "order rotational"} | {
    f"taylor{k}": f"order rotational, forecast taylor{k}" for k in (1, 2, 3)
}
"""Knobs of PipeFusion: plain order, and in rotation what stands for the input that has not come."""


def about(record: Record, rows: pd.DataFrame) -> str:
    """What is measured on which model, and what is predicted for which."""
    config = record.facts["config"]
    measured, planned = config["model"]["name"], config["measure"]["latency_model"]
    dtype, pictures = config["model"]["dtype"], int(rows.pictures.max())
    return (
        f"Distances are MEASURED on {measured} ({dtype}, {pictures} pictures of as many prompts): relative error of "
        f"the final latents to serial's from the same noise. Latencies and bytes are PREDICTED for {planned}, of the "
        "busiest device. The small model tells the order of settings, not the quality that the large one would have."
    )


def seconds(row: dict[str, Any]) -> str:
    """Predicted seconds with their interval, or why there are none."""
    if row["predicted_latency_s"] is None:
        return str(row["status"])
    return f"{row['predicted_latency_s']:.2f} [{row['low_s']:.2f}, {row['high_s']:.2f}]"


def wide(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Column]]:
    """A row for each setting, with a column of seconds for each cluster and size, and these columns."""
    frame = rows.assign(seconds=[seconds(row) for row in plain_rows(rows)])
    frame["world"] = frame.cluster + ", " + frame.resolution.astype(str) + " px, s"
    worlds = list(dict.fromkeys(frame.world))
    keys = [*comparison.SETTING, "relative_error", "rms_error", "psnr_db", "pictures"]
    found = frame.drop_duplicates(comparison.SETTING)[keys]
    for world in worlds:
        part = frame[frame.world == world].set_index(comparison.SETTING).seconds
        found[world] = part.reindex(pd.MultiIndex.from_frame(found[comparison.SETTING])).to_numpy()
    return found, [Column(world, world) for world in worlds]


def every(rows: pd.DataFrame, note: str) -> Table:
    """All settings, seconds with intervals."""
    found, columns = wide(rows)
    shown: Shown = ["method", "devices", "patches", "warmup", "knobs", "steps", ERROR]
    shown += [Column("rms_error", "± standard error", "%", NUMBER, percent), "psnr_db", *columns]
    covered = f" In brackets the intervals that hold {SHARE:.0%} of published latencies."
    return tables.table(rows, words(found, shown), before=note + covered)


def usual(rows: pd.DataFrame, note: str) -> Table:
    """Each method as it is by default on four devices: distance, seconds on each cluster, bytes."""
    task = comparison.usual(rows)
    task = task[task.devices.isin([1, DEVICES]) & (task.steps == STEPS)]
    large = task[task.resolution == LARGE]
    found = large.drop_duplicates("method")
    shown: Shown = ["method", ERROR, "psnr_db"]
    for cluster in dict.fromkeys(large.cluster):
        part = large[large.cluster == cluster].set_index("method").predicted_latency_s
        found = found.assign(**{cluster: part.reindex(found.method).to_numpy()})
        shown.append(Column(str(cluster), str(cluster), "s", NUMBER))
    shown += [column(f"{name}_bytes", unit="GiB") for name in ("sent", "param", "kv", "peak")]
    before = f"N = {DEVICES}, S = {STEPS}, W = 1, M = N; seconds and bytes of one picture of {LARGE} px."
    return tables.table(found, words(found, shown), before=before, after=note)._replace(suffix="_usual")


def forecasts(rows: pd.DataFrame, note: str) -> Table:
    """By N and M of PipeFusion: in plain order and in rotation, by what stands for the input that has not come."""
    mine = rows[(rows.method == comparison.OURS) & (rows.resolution == LARGE) & (rows.steps == STEPS)]
    mine, by = mine[mine.warmup == 1], ["devices", "patches"]
    settings = mine.drop_duplicates(comparison.SETTING)
    errors = settings.pivot(index=by, columns="knobs", values="relative_error")
    found = errors.reindex(columns=[*ORDERS.values()]).set_axis([*ORDERS], axis=1)
    for cluster, part in mine.groupby("cluster", sort=False):
        seconds = part.pivot(index=by, columns="knobs", values="predicted_latency_s")
        found[str(cluster)] = seconds[ORDERS["plain"]] / seconds[ORDERS["last"]]
    found = found.dropna(subset="last").reset_index()
    shown: Shown = ["devices", "patches", *shares(**{word: word for word in ORDERS})]
    shown += ratios(**{cluster: cluster for cluster in dict.fromkeys(mine.cluster)})
    before = (
        f"PipeFusion, S = {STEPS}, W = 1: distance in plain order, and in rotation, where in place of an input that "
        "has not come stands the last one or a forecast from the steps before; on each cluster how many times as fast "
        f"as plain order rotation is predicted to be, {LARGE} px."
    )
    return tables.table(found, words(found, shown), before=before, after=note)._replace(suffix="_forecasts")


def caches(rows: pd.DataFrame, note: str) -> Table:
    """By method and rule: how many steps a step cache computed, and how far that puts pictures from serial's."""
    sampled = rows[rows.computed_steps.notna() & (rows.status == "ok")]
    by = ["method", "devices", "patches", "warmup", "cache", "cache_threshold", "steps"]
    groups = sampled.groupby(by, sort=False, dropna=False)
    found = groups[["computed_steps", "relative_error", "psnr_db"]].mean().reset_index()
    found["computed"] = found.computed_steps / found.steps
    shown: Shown = [*by, "computed_steps", *shares(computed="of all"), ERROR, "psnr_db"]
    before = (
        "Means over pictures, each decided by itself. A computed step computes all blocks, a skipped one none or, with "
        "fbcache, the first; of patches the mean. The first W steps, at least one, and the last are always computed."
    )
    return tables.table(found, words(found, shown), before=before, after=note)._replace(suffix="_caches")


def better(rows: pd.DataFrame, note: str) -> Table:
    """By cluster, size, N and S: PipeFusion by default, and what is faster and no further from serial."""
    found = comparison.beaten(rows).reindex(
        columns=[
            *(*comparison.PLACE, *BOTH, "better"),
            *(
                f"{name}{end}"
                for name in ("fastest", "nearest")
                for end in ("", *(f"_{key}" for key in BOTH))
            ),
        ]
    )
    shown: Shown = [*WORLD, "devices", "steps", column("predicted_latency_s", heading="PipeFusion"), ERROR]
    shown.append(Column("better", "faster and no further", kind=COUNT))
    for name in ("fastest", "nearest"):
        shown += texts(**{name: f"the {name} of these"})
        latency = column("predicted_latency_s", heading=f"{name}: latency")
        shown.append(replace(latency, name=f"{name}_predicted_latency_s"))
        shown += shares(**{f"{name}_relative_error": f"{name}: distance"})
    text = words(found, shown)
    return tables.table(found, text, after=note)._replace(suffix="_better")
