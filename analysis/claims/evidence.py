"""Everything that claims are tested with, read once from the results folder."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, log1p
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import accounting, published, scaling
from analysis.quality import paired
from analysis.quality import record as quality_record
from analysis.rows import Rows, read_rows
from analysis.staleness import tables as staleness
from analysis.study import load_study

PREDICTIONS = "records/published/predictions.json"
SCALING = "records/scaling"
MODELS = "records/paper/latency"
ACCOUNTING = "records/accounting"
PARAMS = "records/params"
QUALITY = "records/quality"
STALENESS = "records/staleness"
OPTIONAL = "records/paper/latency/*"
READ = (PREDICTIONS, SCALING, OPTIONAL, ACCOUNTING, accounting.WHOLE, PARAMS, *paired.FILES, STALENESS)
RECORDS = ("published/*.csv", *READ)
"""All that is read, below the results folder; what is a pattern may match nothing."""

LEAST = 0.05
"""No prediction and no bar of a figure is trusted to less than this share: sources round, and read off curves."""
COVERED, FEW = 0.9, 5
"""The share of predictions that an interval is made to cover, and the fewest of a method that say how wide it is."""
ALL = "all methods"
MODEL = "pixart_alpha"


@dataclass(frozen=True)
class Evidence:
    """`predictions` has a row a published row, `models` one a model, cluster, resolution and method at its fastest M
    (empty where there is no record yet), `cases` the fullest device of every case that was counted, `printed` the same
    in the form that Table 1 counts, `paired` a row a setting and picture."""

    folder: Path
    rows: Rows
    predictions: pd.DataFrame
    peaks: dict[str, int]
    errors: dict[tuple[str, int], float]
    scaling: pd.DataFrame
    models: pd.DataFrame
    accounts: dict[str, Any]
    cases: pd.DataFrame
    printed: pd.DataFrame
    params: pd.DataFrame
    quality: pd.DataFrame
    paired: pd.DataFrame
    stale: staleness.Record

    def value(self, row_id: str) -> float:
        """A published number."""
        return float(self.rows[row_id]["value"])

    def pick(self, file: str, **wanted: str | int) -> list[str]:
        """Ids of the rows of a file: `source`, `setting` and `hardware` contain a text, other columns are it."""

        def fits(row: dict[str, str], key: str, want: str) -> bool:
            return want in row[key] if key in ("source", "setting", "hardware") else row[key] == want

        return [
            row_id
            for row_id, row in self.rows.items()
            if row_id.startswith(f"{file}.csv:")
            and all(fits(row, key, str(want)) for key, want in wanted.items())
        ]

    def one(self, file: str, **wanted: str | int) -> str:
        """The only such row. Raises ValueError where there is none, or are several."""
        (found,) = self.pick(file, **wanted)
        return found

    def prediction(self, row_id: str) -> dict[Any, Any]:
        """All that is known of the prediction of a published row."""
        return self.predictions.loc[row_id].to_dict()

    def predicted(self, row_id: str) -> float | None:
        """Predicted seconds of a published row; None where its own cluster was fitted on that number."""
        row = self.prediction(row_id)
        counts = row["role"] == "prediction" and pd.notna(row["predicted_s"])
        return float(row["predicted_s"]) if counts else None

    def serial(self, row_id: str) -> float:
        """Seconds of one GPU as modelled, which is what profiles are fitted on."""
        return float(self.prediction(row_id)["predicted_s"])

    def seconds(self, model: str, cluster: str, px: int, devices: int, method: str) -> float | None:
        """Predicted seconds of a setting with W = 1, its fastest M; None where there is none, or only a fitted one."""
        if model == MODEL:
            table = self.predictions
            keep = (table.cluster == cluster) & (table.resolution == px) & (table.devices == devices)
            keep &= (table.method == method) & table.predicted_s.notna()
            keep &= (table.role == "prediction") | (devices == 1)
            keep &= ((table.warmup == 1) | table.warmup.isna()) & ~table.published_oom
            found = table[keep].predicted_s
        elif self.models.empty:
            return None
        else:
            table = self.models
            keep = (table.model == model) & (table.cluster == cluster) & (table.resolution == px)
            keep &= (table.devices == devices) & (table.method == method) & (table.status == "ok")
            found = table[keep & table.fastest].predicted_latency_s
        return float(found.min()) if len(found) else None

    def error(self, px: int, *methods: str) -> float:
        """What the logarithm of a predicted latency, or a ratio of two, may be off by: that of each in quadrature."""
        return hypot(*(self.errors.get((method, px), self.errors[ALL, px]) for method in methods))

    def case(self, model: str, px: int, devices: int, method: str, warmup: int | None = None) -> pd.Series:
        """What the fullest device of a case holds and sends."""
        table = self.cases
        keep = (table.model == model) & (table.resolution == px) & (table.devices == devices)
        keep &= (table.method == method) & (table.warmup.isna() if warmup is None else table.warmup == warmup)
        (found,) = (row for _, row in table[keep].iterrows())
        return found

    def doubts(self, *row_ids: str) -> str:
        """Why published rows cannot be right as they stand, each reason once, and which others contradict them."""
        known = self.predictions.reindex(row_ids)
        parts = [part for text in known.doubt.dropna() for part in str(text).split("; ") if part]
        parts += [
            f"{row_id} is contradicted by {other.replace(' ', ', ')}"
            for row_id, other in known.contradicted_by.dropna().items()
            if other
        ]
        return f"Source in doubt: {'; '.join(dict.fromkeys(parts))}" if parts else ""


def errors_of(table: pd.DataFrame) -> dict[tuple[str, int], float]:
    """(method, resolution) -> what the logarithms of nine in ten predictions are off by, and of `ALL` methods.

    Of rows that are no calibration, not in doubt, not contradicted by another, each number once.
    """
    rows = published.cuts(published.scored(table))["once"]
    rows = rows[rows.contradicted_by == ""]
    off = np.log1p(rows.error).abs()
    parts = {
        **{(ALL, px): part for px, part in off.groupby(rows.resolution)},
        **{key: part for key, part in off.groupby([rows.method, rows.resolution]) if len(part) >= FEW},
    }
    return {
        (str(method), int(px)): max(log1p(LEAST), float(part.quantile(COVERED)))
        for (method, px), part in parts.items()
    }


def read(results: Path) -> Evidence:
    """From the committed records. Raises OSError where one but `MODELS` is not there."""
    predictions = published.load(results / PREDICTIONS)
    table = published.joined(predictions, results / "published")
    accounts, devices = accounting.load(results / ACCOUNTING)
    models, cases = results / MODELS, accounting.fullest(devices)
    return Evidence(
        folder=results / "published",
        rows=read_rows(sorted((results / "published").glob("*.csv"))),
        predictions=table.set_index("row_id"),
        peaks={one["row_id"]: one["peak_bytes"] for one in predictions},
        errors=errors_of(table),
        scaling=pd.DataFrame(scaling.load(results / SCALING)["rows"]),
        models=pd.DataFrame(scaling.load(models)["rows"]) if models.exists() else pd.DataFrame(),
        accounts=accounts,
        cases=cases,
        printed=accounting.as_printed(cases, results),
        params=load_study(results / PARAMS).rows,
        quality=quality_record.settings(quality_record.load(results / QUALITY)),
        paired=paired.load(results / QUALITY),
        stale=staleness.load(results / STALENESS),
    )
