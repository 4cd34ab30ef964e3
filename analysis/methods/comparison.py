"""All methods beside each other: distances to serial measured on the small model, latencies predicted for a large one.

Rows of `measure=comparison`: a picture each of what was sampled, and a plan each. A setting is a method with its N, M,
W, knobs and S; its distance and its plans are joined, and where no other setting is both nearer and faster it is on the
front of its cluster, size, N and S.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.evidence.intervals import load_intervals
from analysis.presentation.looks import in_order, label
from analysis.records.study import plain_rows

SETTING = ["method", "devices", "patches", "warmup", "knobs", "steps"]
WORLD = ["cluster", "resolution"]
PLACE = [*WORLD, "devices", "steps"]
"""Settings of one place are compared with each other."""
PLANNED = ["predicted_latency_s", "sent_bytes", "param_bytes", "kv_bytes", "peak_bytes", "borrowed"]
BOTH = ["predicted_latency_s", "relative_error"]
OURS = "pipefusion"


def distances(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting that was sampled: means over its pictures, and the standard error of the first."""
    sampled = rows[rows.picture.notna() & (rows.status == "ok")]
    groups = sampled.groupby([*SETTING, "sampled_as"], sort=False, dropna=False)
    found = groups[["relative_error", "psnr_db"]].mean()
    return found.assign(rms_error=groups.relative_error.sem(), pictures=groups.size()).reset_index()


def plans(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting, cluster and size that was planned, `ok` or `oom`."""
    return rows[rows.peak_bytes.notna()][[*WORLD, *SETTING, *PLANNED, "status", "reason"]]


def joined(rows: pd.DataFrame) -> pd.DataFrame:
    """Every plan with the distance of its setting, in the order of methods, and whether it is on the front."""
    table = in_order(plans(rows).merge(distances(rows), on=SETTING, how="left"))
    table["speedup"] = speedup(table)
    on_front = [
        part.index[front(part.predicted_latency_s, part.relative_error)] for part in places(table).values()
    ]
    return table.assign(front=table.index.isin([index for part in on_front for index in part]))


def front(seconds: pd.Series, error: pd.Series) -> list[bool]:
    """Whether no other setting is at least as good in both and better in one; what lacks a number is not on it."""
    points = list(zip(seconds, error, strict=True))

    def beaten(one: tuple[float, float]) -> bool:
        return any(s <= one[0] and e <= one[1] and (s, e) != one for s, e in points)

    return [not (pd.isna(one[0]) or pd.isna(one[1]) or beaten(one)) for one in points]


def places(table: pd.DataFrame) -> dict[tuple[Any, ...], pd.DataFrame]:
    """The rows of each cluster, size, N and S; serial, which has one device, is in those of every N."""
    found = {}
    for place, part in table[table.devices > 1].groupby(PLACE, sort=False):
        cluster, px, _, steps = place
        same = (table.cluster == cluster) & (table.resolution == px) & (table.steps == steps)
        found[place] = table[same & (table.index.isin(part.index) | (table.devices == 1))]
    return found


def speedup(table: pd.DataFrame) -> pd.Series:
    """Serial's seconds over those of each row, of the same cluster, size and S."""
    by = [*WORLD, "steps"]
    serial = table[table.method == "serial"].drop_duplicates(by).set_index(by).predicted_latency_s
    keys = pd.MultiIndex.from_frame(table[by])
    return pd.Series(serial.reindex(keys).to_numpy(), table.index) / table.predicted_latency_s


def with_intervals(table: pd.DataFrame, results: Path) -> pd.DataFrame:
    """The table with the interval of each predicted latency."""
    made = load_intervals(results)
    ends = [
        made.around(row["predicted_latency_s"], row["method"], row["resolution"], row["cluster"], bool(row["borrowed"]))
        if row["predicted_latency_s"] is not None
        else (None, None)
        for row in plain_rows(table)
    ]  # fmt: skip
    low, high = zip(*ends, strict=True)
    return table.assign(low_s=pd.Series(low, table.index, float), high_s=pd.Series(high, table.index, float))


def usual(table: pd.DataFrame) -> pd.DataFrame:
    """Every method as it is by default: no knob turned, W = 1, M = N."""
    same = table.patches.isna() | (table.patches == table.devices)
    return table[(table.knobs == "") & same & (table.warmup.isna() | (table.warmup == 1))]


def beaten(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each place: PipeFusion with M = N and W = 1, and how many settings are faster and no further off.

    Of these the fastest and the nearest; PipeFusion's own other settings are among them.
    """
    found = []
    for place, part in places(table).items():
        ok = part[part.predicted_latency_s.notna() & part.relative_error.notna()]
        default = usual(ok)
        for mine in plain_rows(default[default.method == OURS]):
            faster = ok.predicted_latency_s < mine["predicted_latency_s"]
            better = ok[faster & (ok.relative_error <= mine["relative_error"])]
            row = dict(zip(PLACE, place, strict=True)) | {key: mine[key] for key in BOTH}
            row["better"] = len(better)
            for name, order in (("fastest", BOTH), ("nearest", BOTH[::-1])):
                for best in plain_rows(better.sort_values(order).head(1)):
                    row |= {name: setting_name(best)} | {f"{name}_{key}": best[key] for key in BOTH}
            found.append(row)
    return pd.DataFrame(found)


def setting_name(row: dict[str, Any]) -> str:
    """A method with its M, W and knobs, without N: `PipeFusion M=4 W=1`, `Ulysses teacache 0.2`."""
    parts = [
        f"{symbol}={row[key]}" for key, symbol in (("patches", "M"), ("warmup", "W")) if row[key] is not None
    ]
    knobs = re.sub(r"\bcache (\w+)(?:, cache threshold)?", r"\1", row["knobs"])
    return " ".join([label(row["method"]), *parts, *([knobs] if knobs else [])])
