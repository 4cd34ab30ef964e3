"""Claims of the sources with a verdict each, what they contradict, and every published number beside ours."""

from __future__ import annotations

from pathlib import Path

from analysis.evidence import tables
from analysis.evidence.beside import lines
from analysis.evidence.claims import all_claims
from analysis.evidence.contradictions import contradictions as found
from analysis.evidence.records import RECORDS, Evidence
from analysis.output import Output
from analysis.presentation.tables import Table, table
from analysis.records.committed import ACCOUNTING, LATENCY, PREDICTIONS, PUBLISHED, STALENESS, WHOLE


def claims(results: Path) -> list[Table]:
    """What the sources claim, ours beside it, and a verdict that one function makes of the two and a tolerance
    (published rows; records as named in each row)."""
    evidence = Evidence(results)
    rows = tables.claims(all_claims(evidence))
    return [table(rows, tables.claims_text(rows, evidence.rows))]


def claims_summary(results: Path) -> list[Table]:
    """Claims by kind of evidence and verdict."""
    rows = tables.summary(all_claims(Evidence(results)))
    return [table(rows, tables.summary_text(rows))]


def published_vs_ours(results: Path) -> list[Table]:
    """Every published row beside what is here for it: measured, predicted, predicted and fitted on it, computed, or why
    it is not testable. Latencies from records/published, ratios of the text from records/paper/latency, bytes from
    records/accounting, freshness of K and V from records/staleness."""
    return [tables.tabulate_beside(tables.beside(list(lines(Evidence(results)))))]


def contradictions(results: Path) -> list[Table]:
    """What does not go together among the published rows, found by computation from these rows; our predictions
    (records/published) only tell which of two labels fits and where more devices should not be slower, and the record
    of models (records/accounting) how many layers there are."""
    return [tables.tabulate_contradictions(tables.contradictions(list(found(Evidence(results)))))]


OUTPUTS = [
    Output(claims, RECORDS, "All claims"),
    Output(claims_summary, RECORDS, "All claims"),
    Output(
        published_vs_ours,
        (PUBLISHED, PREDICTIONS, LATENCY, ACCOUNTING, WHOLE, STALENESS),
        "All tables and figures",
    ),
    Output(contradictions, (PUBLISHED, PREDICTIONS, ACCOUNTING), "All tables and figures"),
]
