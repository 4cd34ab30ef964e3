"""What is predicted for hardware that is not here, with the published numbers beside it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis import scaling as scalings
from analysis import style, tables
from analysis.evidence import predictions as published
from analysis.gantt import gantt
from analysis.output import Output
from analysis.timeline import read

PREDICTIONS = "records/published"
ROWS = "published/*.csv"


def published_predictions(results: Path) -> list[Path]:
    """Every published latency (published rows) beside what is predicted for its hardware (records/published); a row
    that the hardware's profile was fitted on says so."""
    table = predictions_of(results)
    return tables.save(table, published.table_text(table), results / "tables", "published_predictions")


def published_errors(results: Path) -> list[Path]:
    """Median absolute error of the predictions (records/published) against the published rows, by method and
    resolution, rows of calibration left out."""
    return published.save_statistics(predictions_of(results), results / "tables", "published_errors")


def predictions_of(results: Path) -> pd.DataFrame:
    """The committed predictions joined with the published rows."""
    return published.joined(published.load(results / PREDICTIONS), results / "published")


def scaling(results: Path) -> list[Path]:
    """Predicted latency and peak memory against N (lines), with published points of the same hardware (markers; hollow
    where the profile is fitted on them); both from records/scaling."""
    record = scalings.load(results / "records/scaling")
    written = scalings.save(record, results / "tables", "scaling")
    return written + style.save(scalings.figure(record), results / "figures", "scaling")


def timeline(results: Path) -> list[Path]:
    """One lane a rank of PipeFusion on 8 L40: what it computes, what it waits for, and the bubble; predicted,
    records/timeline."""
    run, spans = read(results / "records/timeline")
    return style.save(gantt(run, spans), results / "figures", "timeline")


OUTPUTS = [
    Output(
        published_predictions,
        (PREDICTIONS, ROWS),
        ("python run.py experiment=predict_published",),
        "Figures and tables of latency",
    ),
    Output(
        published_errors,
        (PREDICTIONS, ROWS),
        ("python run.py experiment=predict_published",),
        "Figures and tables of latency",
    ),
    Output(
        timeline,
        ("records/timeline/run.json", "records/timeline/ranks.csv", "records/timeline/timeline.parquet"),
        (
            "python run.py model=pixart_alpha cluster=l40_pcie devices=8 method.patches=8 model.resolution=2048 "
            "hydra.run.dir=results/runs/timeline",
        ),
        "The figure of PipeFusion's schedule",
    ),
    Output(
        scaling,
        ("records/scaling",),
        ("python run.py experiment=scaling",),
        "The figure of scalability",
        "paper_scalability",
    ),
]
