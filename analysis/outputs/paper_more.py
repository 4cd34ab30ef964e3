"""The rest of the paper's tables and figures: schedule, published against predicted, M, W, FID, Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.evidence.predictions import load_joined
from analysis.memory import accounting
from analysis.output import Output
from analysis.paper import (
    costs,
    fid,
    fid_figure,
    patches,
    scatter,
    schedule,
    schedule_figure,
    warmup,
)
from analysis.paper.panels import short_commit
from analysis.presentation.style import Drawing
from analysis.presentation.tables import Table
from analysis.quality import paired
from analysis.quality import record as quality_record
from analysis.records.committed import ACCOUNTING, PAIRED, PREDICTIONS, PUBLISHED, QUALITY, SCHEDULE, WHOLE
from analysis.records.record import load_run


def paper_schedule(results: Path) -> list[Drawing]:
    """PipeFusion's schedule from a real run's timeline and ledger (records/paper/schedule): a lane a device, a box a
    job (step.patch), arrows the way of patch 0; below, job by job, of which step the K, V are that one device attends
    to: full colour fresh, hatched one step old."""
    plan, spans = schedule.load(results / SCHEDULE)
    record = load_run(results / SCHEDULE)
    source = (
        f"Source: results/{SCHEDULE} (run.json, timeline.parquet, ledger.parquet), {short_commit(record)}."
    )
    return [Drawing(schedule_figure.figure(plan, spans, source))]


def paper_published(results: Path) -> list[Drawing]:
    """Published latencies (published rows) against predicted ones (records/published), and the relative error by model
    and resolution: hollow where the profile is fitted on the row, pale where the source is in doubt."""
    return [Drawing(scatter.figure(load_joined(results)))]


def paper_patches(results: Path) -> list[Drawing]:
    """Latency of PipeFusion against M on 2 and 8 L20: published (stars, published/patch_sweep.csv), predicted (lines,
    records/published) and the bound of the schedule; at the right the error of the shipped model against M, measured
    (records/quality)."""
    record = paired.of_studies(quality_record.load(results / QUALITY), "patches")
    return [Drawing(patches.figure(load_joined(results), record))]


def paper_warmup(results: Path) -> list[Drawing]:
    """Latency of PipeFusion against synchronous steps: published (stars, published/warmup.csv) and predicted (lines,
    records/published); at the right the error of the shipped model against W, measured (records/quality)."""
    record = paired.of_studies(quality_record.load(results / QUALITY), "warmup")
    return [Drawing(warmup.figure(load_joined(results), record))]


def paper_fid(results: Path) -> Sequence[Table | Drawing]:
    """FID as published (published/quality_fid.csv) beside the Fréchet distances of the shipped model, measured
    (records/quality): neither the same metric nor the same model."""
    record = quality_record.load(results / QUALITY)
    table = fid.joined(record, results / "published")
    return [fid.tabulate(table, record), Drawing(fid_figure.figure(table, record))]


def paper_table1(results: Path) -> list[Table]:
    """Table 1's formulas (published/table1_costs.csv), what they come to for a full-size model on eight devices, and
    what was counted on the fullest one (records/accounting)."""
    record, devices = accounting.load(results / ACCOUNTING)
    cases = accounting.as_printed(accounting.fullest(devices), results)
    return [costs.tabulate(costs.table(record, cases, results / "published"), record)]


RUN = tuple(f"{SCHEDULE}/{name}" for name in ("run.json", "ranks.csv", "timeline.parquet", "ledger.parquet"))
SWEPT = (PREDICTIONS, PUBLISHED, *PAIRED)
OUTPUTS = [
    Output(paper_schedule, RUN, "Section 3, the schedule"),
    Output(
        paper_published,
        (PREDICTIONS, PUBLISHED),
        "Table 4 and Figure 5, latency: published against predicted",
    ),
    Output(paper_patches, SWEPT, "Section 4, the number of patches M"),
    Output(paper_warmup, SWEPT, "Table 3, warm-up"),
    Output(paper_fid, (f"published/{fid.FILE}", *PAIRED), "Table 2, FID"),
    Output(
        paper_table1,
        (ACCOUNTING, WHOLE, "published/table1_costs.csv"),
        "Table 1",
        "paper_table1_tensor",
    ),
]
