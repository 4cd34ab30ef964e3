"""Claims of the sources with a verdict each, what they contradict, and every published number beside ours."""

from __future__ import annotations

from pathlib import Path

from analysis import accounting
from analysis.evidence import tables
from analysis.evidence.beside import FRESHNESS, lines
from analysis.evidence.claims import all_claims
from analysis.evidence.contradictions import contradictions as found
from analysis.evidence.records import ACCOUNTING, MODELS, PREDICTIONS, RECORDS, Evidence
from analysis.output import Output
from analysis.tables import save


def claims(results: Path) -> list[Path]:
    """What the sources claim, ours beside it, and a verdict that one function makes of the two and a tolerance
    (published rows; records as named in each row)."""
    rows = tables.claims(all_claims(Evidence(results)))
    return save(rows, tables.claims_text(rows), results / "tables", "claims")


def claims_summary(results: Path) -> list[Path]:
    """Claims by kind of evidence and verdict."""
    rows = tables.summary(all_claims(Evidence(results)))
    return save(rows, tables.summary_text(rows), results / "tables", "claims_summary")


def published_vs_ours(results: Path) -> list[Path]:
    """Every published row beside what is here for it: measured, predicted, predicted and fitted on it, computed, or why
    it is not testable. Latencies from records/published, ratios of the text from records/paper/latency, bytes from
    records/accounting, freshness of K and V from records/staleness."""
    rows = tables.beside(list(lines(Evidence(results))))
    return tables.save_beside(rows, results / "tables", "published_vs_ours")


def contradictions(results: Path) -> list[Path]:
    """What does not go together among the published rows, found by computation from these rows; our predictions
    (records/published) only tell which of two labels fits and where more devices should not be slower, and the record
    of models (records/accounting) how many layers there are."""
    rows = tables.contradictions(list(found(Evidence(results))))
    return tables.save_contradictions(rows, results / "tables", "contradictions")


COMMANDS = (
    "python run.py experiment=predict_published",
    "python run.py experiment=scaling",
    "python run.py experiment=paper/latency",
    "python run.py experiment=accounting",
    "python run.py experiment=paper/table1_tensor",
    "python run.py experiment=params_per_device",
    "python run.py experiment=quality",
    "python run.py experiment=staleness",
)
OUTPUTS = [
    Output(claims, RECORDS, COMMANDS, "All claims"),
    Output(claims_summary, RECORDS, COMMANDS, "All claims"),
    Output(
        published_vs_ours,
        ("published/*.csv", PREDICTIONS, MODELS, ACCOUNTING, accounting.WHOLE, FRESHNESS),
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
        ("published/*.csv", PREDICTIONS, ACCOUNTING),
        ("python run.py experiment=predict_published", "python run.py experiment=accounting"),
        "All tables and figures",
    ),
]
