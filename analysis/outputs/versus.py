"""The published rows beside ours, and beside each other."""

from __future__ import annotations

from pathlib import Path

from analysis import accounting
from analysis.contradictions import found as against
from analysis.output import Output
from analysis.versus import lines as versus


def published_vs_ours(results: Path) -> list[Path]:
    """Every published row beside what is here for it: measured, predicted, predicted and fitted on it, computed, or why
    it is not testable. Latencies from records/published, ratios of the text from records/paper/latency, bytes from
    records/accounting, freshness of K and V from records/staleness."""
    return versus.save(versus.table(versus.load(results)), results / "tables", "published_vs_ours")


def contradictions(results: Path) -> list[Path]:
    """What does not go together among the published rows, found by computation from these rows; our predictions
    (records/published) only tell which of two labels fits and where more devices should not be slower, and the record
    of models (records/accounting) how many layers there are."""
    return against.save(against.table(against.load(results)), results / "tables", "contradictions")


OUTPUTS = [
    Output(
        published_vs_ours,
        (
            "published/*.csv",
            "records/published/predictions.json",
            "records/paper/latency",
            "records/accounting",
            accounting.WHOLE,
            "records/staleness",
        ),
        (
            "python run.py experiment=predict_published",
            "python run.py experiment=paper/latency",
            "python run.py experiment=accounting",
            "python run.py experiment=paper/table1_tensor",
            "python run.py experiment=staleness",
        ),
        "All tables and figures",
    ),
    Output(
        contradictions,
        ("published/*.csv", "records/published/predictions.json", "records/accounting"),
        ("python run.py experiment=predict_published", "python run.py experiment=accounting"),
        "All tables and figures",
    ),
]
