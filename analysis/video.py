"""Plans of videos: which setting is the fastest, where PipeFusion is beside it, and what its repeated reads of K, V cost.

A patch's attention reads K, V of the whole video, so that a step of M patches reads them M times. On a roofline these
reads cost time only where they take longer than the arithmetic of the same kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis import tables
from analysis.columns import GIB, Column, Shown, column, digits, texts, words
from analysis.evidence.claim import Comparison, outcome, verdict
from analysis.planning import WITHIN, behind, fitting, interval, requests, setting
from analysis.study import Record, pixels, plain_rows
from analysis.tables import Table

CLAIM = "PipeFusion pays for video with repeated reads of K, V"
OURS = "pipefusion"
SHOWN: Shown = [
    *texts(model="model", cluster="cluster"),
    "asked",
    *texts(video="video", wins="fastest"),
    "predicted_latency_s",
    *texts(interval=WITHIN),
    column("speedup"),
    *texts(pipe="fastest PipeFusion", pipe_said="it takes"),
    Column("reads_gib", "attention reads and writes GiB a step", kind="float64", format=digits(1)),
    Column("times_serial", "/ serial", kind="float64", format=digits(2)),
    Column("read_share", "their seconds / arithmetic", kind="float64", format=digits(3)),
]


def tabulate(records: Sequence[Record]) -> list[Table]:
    """A row for each plan, and the verdict on what repeated reads cost below them."""
    rows = pd.DataFrame([line(record) for record in records])
    return [tables.table(rows, words(rows, SHOWN), after=judged(records))]


def line(record: Record) -> dict[str, object]:
    """The fastest setting of a plan, and the fastest of PipeFusion with what attention reads on a device in a step."""
    part = requests(record.rows)[0]
    fits = fitting(part)
    best, first = fits[0], plain_rows(part)[0]
    serial = next((row for row in fits if row["devices"] == 1), None)
    found = {key: first[key] for key in ("model", "cluster", "asked")}
    found["video"] = f"{pixels(first)}, {frames(record)} pictures"
    found |= {"wins": setting(best), "interval": interval(best)}
    found |= {"predicted_latency_s": best["predicted_latency_s"]}
    found["speedup"] = serial and serial["predicted_latency_s"] / best["predicted_latency_s"]
    ours = next((row for row in fits if row["method"] == OURS), None)
    if ours is not None:
        found |= {"pipe": setting(ours), "pipe_said": f"{100 * behind(ours, best):.1f} % longer"}
        found["reads_gib"] = ours["attention_bytes"] / GIB / ours["steps"]
        found["times_serial"] = serial and ours["attention_bytes"] / serial["attention_bytes"]
        found["read_share"] = share(ours)
    return found


def frames(record: Record) -> int:
    """Pictures of the video."""
    model = record.facts["config"]["model"]
    return int(model["frames"] or model["architecture"]["frames"])


def share(row: dict[str, object]) -> float:
    """Seconds of attention's reads and writes over those of its arithmetic."""
    return float(row["attention_traffic_s"]) / float(row["attention_arithmetic_s"])  # type: ignore[arg-type]


def judged(records: Sequence[Record]) -> str:
    """The verdict on the claim, from the setting of PipeFusion whose attention reads the most beside its arithmetic."""
    mine = [row for record in records for row in fitting(record.rows) if row["method"] == OURS]
    worst = max(mine, key=share)
    test = Comparison(share(worst), None, relation="more", bound=1.0)
    return (
        f"{CLAIM}: **{verdict(test)}**. Of {len(mine)} settings of PipeFusion the one whose attention reads the most "
        f"beside its arithmetic ({worst['model']} on {worst['cluster']}, {setting(worst)}) takes {share(worst):.3f} times "
        f"as long for its reads and writes as for its arithmetic, behind which they are hidden. {outcome(test)}."
    )
