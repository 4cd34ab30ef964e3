"""What is predicted for hardware that is not here, with the published numbers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.evidence import prediction_tables as tabled
from analysis.evidence import predictions as published
from analysis.evidence import selector as judged
from analysis.evidence.intervals import coverage_text, with_intervals
from analysis.output import Output
from analysis.predicted import scaling as scalings
from analysis.presentation.style import Drawing
from analysis.presentation.tables import Table, table
from analysis.records.committed import BEFORE, PREDICTIONS, PUBLISHED, SCALING, TIMELINE
from analysis.runs.gantt import gantt
from analysis.runs.timeline import read


def published_predictions(results: Path) -> list[Table]:
    """Every published latency (published rows) beside what is predicted for its hardware (records/published); a row
    that the hardware's profile was fitted on says so."""
    rows = with_intervals(published.load_joined(results))
    return [table(rows.drop(columns=["steps", "printed_warmup"]), tabled.table_text(rows))]


def published_errors(results: Path) -> list[Table]:
    """Median absolute error of the predictions (records/published) against the published rows, by method and
    resolution, rows of calibration left out; beside them that of the cost model before (records/published_before)."""
    now, before = (published.load_joined(results, record) for record in (PREDICTIONS, BEFORE))
    return [tabled.tabulate_statistics(now, before, coverage_text(now))]


def selector(results: Path) -> list[Table]:
    """How often the setting that is predicted as the fastest (records/published) is the fastest published one of its
    group (same source, hardware, model, size, N, S; W = 1; rows in doubt and rows of calibration left out), and the
    regret: the published seconds of the chosen setting over the least of the group, minus one."""
    return judged.tabulate(judged.load(results))


def scaling(results: Path) -> Sequence[Table | Drawing]:
    """Predicted latency against N, a figure a cluster (lines), with published points of the same hardware (markers;
    hollow where the profile is fitted on them), and predicted peak memory; all from records/scaling."""
    record = scalings.load(results / SCALING)
    sheets = [Drawing(scalings.latency_figure(record, name), f"_{name}") for name in record["clusters"]]
    return [scalings.tabulate(record), *sheets, Drawing(scalings.memory_figure(record), "_memory")]


def timeline(results: Path) -> list[Drawing]:
    """One lane a rank of PipeFusion on 8 L40: what it computes, what it waits for, and the bubble; predicted,
    records/timeline."""
    return [Drawing(gantt(*read(results / TIMELINE)))]


RUN = tuple(f"{TIMELINE}/{name}" for name in ("run.json", "ranks.csv", "timeline.parquet"))
OUTPUTS = [
    Output(published_predictions, (PREDICTIONS, PUBLISHED), "Table 4 and Figure 5, latency: every row"),
    Output(published_errors, (PREDICTIONS, BEFORE, PUBLISHED), "Table 4 and Figure 5, latency: every row"),
    Output(selector, (PREDICTIONS, PUBLISHED)),
    Output(timeline, RUN, "Section 3, the schedule"),
    Output(scaling, (SCALING,), "Section 4, scalability with N", "paper_scalability"),
]
