"""The rest of the paper's tables and figures: schedule, published against predicted, M, W, FID, Table 1."""

from __future__ import annotations

from pathlib import Path

from analysis import accounting, style
from analysis.output import Output
from analysis.paper import (
    costs,
    fid,
    fid_figure,
    patches,
    predictions,
    scatter,
    schedule,
    schedule_figure,
    warmup,
)
from analysis.paper.panels import commit_of
from analysis.quality import paired
from analysis.quality import record as quality_record
from analysis.record import load_run

SCHEDULE, QUALITY = "records/paper/schedule", "records/quality"
FID_ROWS, TABLE1 = f"published/{fid.FILE}", "published/table1_costs.csv"
PREDICT, SAMPLE = "python run.py experiment=predict_published", "python run.py experiment=quality"


def paper_schedule(results: Path) -> list[Path]:
    """PipeFusion's schedule from a real run's timeline and ledger (records/paper/schedule): a lane a device, a box a
    job (step.patch), arrows the way of patch 0; below, job by job, of which step the K, V are that one device attends
    to: full colour fresh, hatched one step old."""
    plan, spans = schedule.load(results / SCHEDULE)
    record = load_run(results / SCHEDULE)
    source = f"Source: results/{SCHEDULE} (run.json, timeline.parquet, ledger.parquet), {commit_of(record)}."
    return style.save(schedule_figure.figure(plan, spans, source), results / "figures", "paper_schedule")


def paper_published(results: Path) -> list[Path]:
    """Published latencies (published rows) against predicted ones (records/published), and the relative error by model
    and resolution: hollow where the profile is fitted on the row, pale where the source is in doubt."""
    sheet = scatter.figure(predictions.load(results), f"results/{predictions.SOURCE}")
    return style.save(sheet, results / "figures", "paper_published")


def paper_patches(results: Path) -> list[Path]:
    """Latency of PipeFusion against M on 2 and 8 L20: published (stars, published/patch_sweep.csv), predicted (lines,
    records/published) and the bound of the schedule; at the right the error of the shipped model against M, measured
    (records/quality)."""
    table, record = (
        predictions.load(results),
        paired.of_studies(quality_record.load(results / QUALITY), "patches"),
    )
    sheet = patches.figure(table, record, f"results/{predictions.SOURCE}")
    return style.save(sheet, results / "figures", "paper_patches")


def paper_warmup(results: Path) -> list[Path]:
    """Latency of PipeFusion against synchronous steps: published (stars, published/warmup.csv) and predicted (lines,
    records/published); at the right the error of the shipped model against W, measured (records/quality)."""
    table, record = (
        predictions.load(results),
        paired.of_studies(quality_record.load(results / QUALITY), "warmup"),
    )
    sheet = warmup.figure(table, results / "published", record, f"results/{predictions.SOURCE}")
    return style.save(sheet, results / "figures", "paper_warmup")


def paper_fid(results: Path) -> list[Path]:
    """FID as published (published/quality_fid.csv) beside the Fréchet distances of the shipped model, measured
    (records/quality): neither the same metric nor the same model."""
    record = quality_record.load(results / QUALITY)
    table = fid.joined(record, results / "published")
    written = fid.save(table, record, results / "tables", "paper_fid")
    return written + style.save(fid_figure.figure(table, record), results / "figures", "paper_fid")


def paper_table1(results: Path) -> list[Path]:
    """Table 1's formulas (published/table1_costs.csv), what they come to for a full-size model on eight devices, and
    what was counted on the fullest one (records/accounting)."""
    record, devices = accounting.load(results / "records/accounting")
    cases = accounting.as_printed(accounting.fullest(devices), results)
    found = costs.table(record, cases, results / "published")
    return costs.save(found, record, results / "tables", "paper_table1")


OUTPUTS = [
    Output(
        paper_schedule,
        tuple(
            f"{SCHEDULE}/{name}" for name in ("run.json", "ranks.csv", "timeline.parquet", "ledger.parquet")
        ),
        ("python run.py experiment=paper/schedule",),
        "The figure of PipeFusion's schedule",
    ),
    Output(
        paper_published, (predictions.SOURCE, predictions.ROWS), (PREDICT,), "Figures and tables of latency"
    ),
    Output(
        paper_patches,
        (predictions.SOURCE, predictions.ROWS, *paired.FILES),
        (PREDICT, SAMPLE),
        "The figure of latency against M",
    ),
    Output(
        paper_warmup,
        (predictions.SOURCE, predictions.ROWS, *paired.FILES),
        (PREDICT, SAMPLE),
        "The table and figure of warm-up",
    ),
    Output(paper_fid, (FID_ROWS, *paired.FILES), (SAMPLE,), "The tables of FID"),
    Output(
        paper_table1,
        ("records/accounting", accounting.WHOLE, TABLE1),
        ("python run.py experiment=accounting", "python run.py experiment=paper/table1_tensor"),
        "Table 1",
        "paper_table1_tensor",
    ),
]
