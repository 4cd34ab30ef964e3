"""What the sources claim, with a verdict each."""

from __future__ import annotations

from pathlib import Path

from analysis import tables
from analysis.claims import all_claims, table
from analysis.claims.evidence import RECORDS
from analysis.output import Output


def claims(results: Path) -> list[Path]:
    """What the sources claim, ours beside it, and a verdict that one function makes of the two and a tolerance
    (published rows; records as named in each row)."""
    rows = table.table(all_claims(results))
    return tables.save(rows, table.table_text(rows), results / "tables", "claims")


def claims_summary(results: Path) -> list[Path]:
    """Claims by kind of evidence and verdict."""
    rows = table.summary(all_claims(results))
    return tables.save(rows, table.summary_text(rows), results / "tables", "claims_summary")


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
]
