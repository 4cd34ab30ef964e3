"""What the page says first, in three lines, each computed from a committed table and missing where that is missing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from markupsafe import Markup

from analysis.presentation.columns import percent

VERDICTS = ("confirmed", "not confirmed", "undecided", "not testable")


def lines(tables: Path) -> list[Markup]:
    """Of the claims, of the predictions, of the parameters on a device."""
    makers = {"claims": _claims, "published_errors": _predictions, "quickstart_pipefusion": _parameters}
    paths = {tables / f"{name}.csv": make for name, make in makers.items()}
    return [Markup(make(pd.read_csv(path))) for path, make in paths.items() if path.exists()]


def _claims(rows: pd.DataFrame) -> str:
    counts = ", ".join(
        f"<strong>{rows.verdict.str.startswith(word).sum()} {word}</strong>" for word in VERDICTS
    )
    return f'Of {len(rows)} <a href="#verdicts">claims</a>, {counts} here.'


def _predictions(rows: pd.DataFrame) -> str:
    (overall,) = rows[rows.statistic == "overall"].to_dict("records")
    return (
        f"Predictions are off by <strong>{percent(overall['error_all'])}</strong> in the median of "
        f"{overall['rows_all']} <a href='#published'>published numbers</a> ({percent(overall['error_once'])} of "
        f"{overall['rows_once']}, each number once and none in doubt), rows of calibration left out."
    )


def _parameters(rows: pd.DataFrame) -> str:
    fullest = max(rows.to_dict("records"), key=lambda row: float(row["model_share"]))
    return (
        f"Each of {fullest['devices']} devices of PipeFusion holds at most "
        f"<strong>{percent(fullest['block_share'])}</strong> of the blocks and {percent(fullest['model_share'])} of "
        '<a href="#devices">the shipped model</a>, measured.'
    )
