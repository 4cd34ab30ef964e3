"""Plans of videos: which setting is the fastest, where PipeFusion is beside it, what its repeated reads of K, V cost.

A patch's attention reads K, V of the whole video, so that a step of M patches reads them M times. On a roofline these
reads cost time only where they take longer than the arithmetic of the same kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.evidence.claim import Comparison, outcome, verdict
from analysis.predicted.planning import WITHIN, behind, crossovers, fitting, setting
from analysis.presentation import tables
from analysis.presentation.columns import GIB, Column, Shown, digits, percent, texts, words
from analysis.presentation.tables import Table
from analysis.records.study import Record, pixels, plain_rows

CLAIM = "PipeFusion pays for video with repeated reads of K, V"
OURS = "pipefusion"
SHOWN: Shown = [
    *texts(model="model", cluster="cluster"),
    "asked",
    *texts(video="video", wins="fastest"),
    "predicted_latency_s",
    *texts(interval=WITHIN, ours="fastest PipeFusion", behind="it takes longer by"),
    Column("read_gib", "attention reads and writes GiB a step", kind="float64", format=digits(1)),
    Column("read_ratio", "/ serial's", kind="float64", format=digits(2)),
    Column("read_share", "seconds of these / of its arithmetic", kind="float64", format=digits(3)),
]


def tabulate(records: Sequence[Record]) -> list[Table]:
    """A row for each plan, and the verdict on what repeated reads cost below them."""
    rows = pd.DataFrame([line(record) for record in records])
    return [tables.table(rows, words(rows, SHOWN), after=judged(records))]


def line(record: Record) -> dict[str, Any]:
    """The fastest setting of a plan, and the fastest of PipeFusion with what attention reads on a device in a step."""
    fits, first, model = fitting(record.rows), plain_rows(record.rows[:1])[0], record.facts["config"]["model"]
    found = {key: first[key] for key in ("model", "cluster", "asked")}
    found["video"] = f"{pixels(first)} px, {model['frames'] or model['architecture']['frames']} pictures"
    found |= plain_rows(crossovers(record.rows)[["wins", "predicted_latency_s", "interval"]])[0]
    ours = next((row for row in fits if row["method"] == OURS), None)
    if ours is not None:
        found |= {"ours": setting(ours), "behind": percent(behind(ours, fits[0])), "read_share": share(ours)}
        found["read_gib"] = ours["attention_bytes"] / GIB / ours["steps"]
        serial = next((row for row in fits if row["devices"] == 1), None)
        found["read_ratio"] = serial and ours["attention_bytes"] / serial["attention_bytes"]
    return found


def share(row: dict[str, Any]) -> float:
    """Seconds of attention's reads and writes over those of its arithmetic."""
    return float(row["attention_traffic_s"] / row["attention_arithmetic_s"])


def judged(records: Sequence[Record]) -> str:
    """The verdict on the claim, from the setting of PipeFusion whose attention reads the most beside its arithmetic."""
    mine = [row for record in records for row in fitting(record.rows) if row["method"] == OURS]
    worst = max(mine, key=share)
    test = Comparison(share(worst), None, relation="more", bound=1.0)
    return (
        f"{CLAIM}: **{verdict(test)}**. Of {len(mine)} settings of PipeFusion, the one with the most reads for its "
        f"arithmetic ({worst['model']} on {worst['cluster']}, {setting(worst)}) needs {share(worst):.3f} times as long "
        f"for what its attention reads and writes as for its arithmetic, and a kernel takes the longer of the two. "
        f"{outcome(test)}."
    )
