"""What this project predicts: of a published latency, and of the task of a claim."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import published, scaling
from analysis.paper.facts import WARMUP
from analysis.paper.ratios import Clock, Timed, task_of
from analysis.record import load_record
from analysis.rows import Row
from analysis.versus.beside import Beside, untestable

PREDICTIONS = "records/published/predictions.json"
SCALING = "records/paper/latency"


@dataclass(frozen=True)
class Predicted:
    """The predictions of published rows, joined with them, and those of a grid of runs."""

    joined: dict[str, Any]  # one line of `published.joined` a row id
    made: dict[str, dict[str, Any]]  # the record's own row, by row id
    reasons: dict[str, str]  # of the rows without one
    grid: pd.DataFrame


def load(results: Path) -> Predicted:
    """Both records."""
    content = load_record(results / PREDICTIONS)
    joined = published.joined(content["predictions"], results / "published")
    return Predicted(
        joined={str(row.row_id): row for row in joined.itertuples()},
        made={one["row_id"]: one for one in content["predictions"]},
        reasons=content["not_predicted"],
        grid=pd.DataFrame(scaling.load(results / SCALING)["rows"]),
    )


def seconds(results: Path) -> dict[str, float]:
    """Our seconds by the id of the published row, where it fits in memory."""
    made = published.load(results / PREDICTIONS)
    return {one["row_id"]: one["predicted_s"] for one in made if one["status"] == "ok"}


def beside(row_id: str, known: Predicted) -> Beside:
    """A published latency beside ours. Raises KeyError for a row with neither a prediction nor a reason."""
    if row_id not in known.joined:
        return untestable(known.reasons[row_id])
    row, made = known.joined[row_id], known.made[row_id]
    if row.status not in ("ok", "oom"):
        return untestable(f"the prediction failed: {made.get('reason') or row.status}")
    remarks = [f"on {row.cluster}", *made["notes"]]
    if row.role == "calibration":
        remarks.append("the cluster is fitted on this row")
    elif row.role != "prediction":
        remarks.append("the same number as one that the cluster is fitted on")
    remarks += [f"repeats {row.duplicate_of}"] if isinstance(row.duplicate_of, str) else []
    remarks += [memory_said(row)] if row.published_oom or row.predicted_oom else []
    remarks += [f"source in doubt: {row.doubt}"] if row.doubt else []
    remarks += [f"another number in {row.contradicted_by}"] if row.contradicted_by else []
    kind = "predicted" if row.role == "prediction" else "calibration"
    ours = "OOM" if row.predicted_oom else float(row.predicted_s)
    return Beside(ours, kind, "; ".join(remarks), PREDICTIONS)


def is_fitted(row: Row, known: Predicted) -> bool:
    """Whether one device's seconds of a claim's task are fitted, and not predicted from others."""
    gpu, link, model, resolution, _ = task_of(row)
    here = (f"{gpu}_{link}".lower(), model, resolution)
    alone = [i for i, one in known.made.items() if one["method"] == "serial" and place(one) == here]
    return any(known.joined[row_id].role != "prediction" for row_id in alone)


def place(one: dict[str, Any]) -> tuple[str, str, int]:
    return one["cluster"], one["model"], one["resolution"]


def memory_said(row: Any) -> str:
    """Whether both sides say that it does not fit."""
    if row.published_oom and row.predicted_oom:
        return "both out of memory"
    return f"out of memory as {'published' if row.published_oom else 'predicted'} only"


def clock(row: Row, known: Predicted) -> Clock:
    """Our seconds of a claim's task, by method and N: the fastest M at the paper's W.

    A method that ran out of memory there as published is left out: it was no rival.
    """
    gpu, link, model, resolution, steps = task_of(row)
    grid = known.grid
    cluster = f"{gpu}_{link}".lower()
    task = (grid.cluster == cluster) & (grid.model == model)
    task &= (grid.resolution == resolution) & (grid.steps == steps) & (grid.status == "ok")
    runs = grid[task & (grid.warmup.isna() | (grid.warmup == WARMUP))]
    out = [
        one["method"]
        for one in known.made.values()
        if one["oom"] and place(one) == (cluster, model, resolution)
    ]
    runs = runs[~runs.method.isin(out)]

    def seconds(method: str, devices: int) -> Timed | None:
        times = runs[(runs.method == method) & (runs.devices == devices)].predicted_latency_s
        return None if times.empty else Timed(float(times.min()), method, SCALING)

    return seconds
