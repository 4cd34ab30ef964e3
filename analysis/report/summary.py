"""What the page says first, in three lines, each computed from a committed table and missing where that is missing."""

from __future__ import annotations

import csv
from pathlib import Path

from analysis.report.table import MARKS


def lines(tables: Path) -> list[str]:
    """Of the claims, of the predictions, of the parameters on a device."""
    said = [
        _claims(_rows(tables / "claims.csv")),
        _predictions(_rows(tables / "published_errors.csv")),
        _parameters(_rows(tables / "quickstart_pipefusion.csv")),
    ]
    return [line for line in said if line]


def counted(verdicts: list[str]) -> dict[str, int]:
    """How many verdicts begin with each of the words there are."""
    return {word: sum(verdict.lower().startswith(word) for verdict in verdicts) for word in MARKS}


def _claims(rows: list[dict[str, str]]) -> str:
    if not rows:
        return ""
    counts = ", ".join(
        f"**{count} {word}**" for word, count in counted([row["verdict"] for row in rows]).items()
    )
    return f"Of {len(rows)} [claims](#verdicts), {counts} here."


def _predictions(rows: list[dict[str, str]]) -> str:
    overall = next((row for row in rows if row["statistic"] == "overall"), None)
    if overall is None:
        return ""
    return (
        f"Predictions are off by **{_percent(overall['error_all'])}** in the median of {overall['rows_all']} "
        f"[published numbers](#published) ({_percent(overall['error_once'])} of {overall['rows_once']}, each number "
        "once and none in doubt), rows of calibration left out."
    )


def _parameters(rows: list[dict[str, str]]) -> str:
    if not rows:
        return ""
    fullest = max(rows, key=lambda row: float(row["model_share"]))
    return (
        f"Each of {fullest['devices']} devices of PipeFusion holds at most **{_percent(fullest['block_share'])}** of "
        f"the blocks and {_percent(fullest['model_share'])} of [the shipped model](#devices), measured."
    )


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f} %"


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
