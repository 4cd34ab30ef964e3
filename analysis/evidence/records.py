"""The evidence that published numbers are held against, read from the results folder part by part."""

from __future__ import annotations

from functools import cached_property
from math import hypot, log1p
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.evidence import predictions
from analysis.evidence.published import PRODUCT, WARMUP, Published, Rows, read
from analysis.memory import accounting
from analysis.predicted import scaling
from analysis.quality import paired
from analysis.quality import record as quality_record
from analysis.records.committed import (
    ACCOUNTING,
    LATENCY,
    PAIRED,
    PARAMS,
    PREDICTIONS,
    PUBLISHED,
    QUALITY,
    SCALING,
    STALENESS,
    WHOLE,
)
from analysis.records.record import RECORD, load_record
from analysis.records.study import load_study
from analysis.staleness import tables as staleness

RECORDS = (PUBLISHED, PREDICTIONS, SCALING, f"{LATENCY}/*", ACCOUNTING, WHOLE, PARAMS, *PAIRED, STALENESS)
"""All that is read, below the results folder; what is a pattern may match nothing."""

LEAST = 0.05
"""No prediction and no bar of a figure is trusted to less than this share: sources round, and read off curves."""
COVERED, FEW = 0.9, 5
"""The share of predictions that an interval is made to cover, and the fewest of a method that say how wide it is."""
ALL = "all methods"
MODEL = "pixart_alpha"


class Evidence:
    """Published rows and our records, below a results folder; each part is read when it is first asked for.

    `predictions` has a row a published row, `models` one a model, cluster, resolution and method at its fastest M
    (empty where there is no record yet), `cases` the fullest device of every case that was counted, `printed` the same
    in the form that Table 1 counts, `paired` a row a setting and picture.
    """

    def __init__(self, results: Path) -> None:
        self.results = results

    @cached_property
    def rows(self) -> Rows:
        every = read(self.results / "published")
        return {row_id: row for row_id, row in every.items() if not row.third_party}

    @cached_property
    def record(self) -> dict[str, Any]:
        return load_record(self.results / PREDICTIONS / RECORD)

    @cached_property
    def made(self) -> dict[str, dict[str, Any]]:
        """The record's own predictions by row."""
        return {one["row_id"]: one for one in predictions.load(self.results / PREDICTIONS)}

    @cached_property
    def predictions(self) -> pd.DataFrame:
        return predictions.joined(list(self.made.values()), self.results / "published").set_index("row_id")

    @cached_property
    def peaks(self) -> dict[str, int]:
        return {row_id: one["peak_bytes"] for row_id, one in self.made.items() if one.get("peak_bytes")}

    @cached_property
    def errors(self) -> dict[tuple[str, int], float]:
        return prediction_errors(self.predictions)

    @cached_property
    def models(self) -> pd.DataFrame:
        path = self.results / LATENCY
        return pd.DataFrame(scaling.load(path)["rows"]) if path.exists() else pd.DataFrame()

    @cached_property
    def scaling(self) -> pd.DataFrame:
        return pd.DataFrame(scaling.load(self.results / SCALING)["rows"])

    @cached_property
    def accounts(self) -> dict[str, Any]:
        return load_study(self.results / ACCOUNTING).facts

    @cached_property
    def cases(self) -> pd.DataFrame:
        return accounting.fullest(accounting.load(self.results / ACCOUNTING)[1])

    @cached_property
    def printed(self) -> pd.DataFrame:
        return accounting.as_printed(self.cases, self.results)

    @cached_property
    def params(self) -> pd.DataFrame:
        return load_study(self.results / PARAMS).rows

    @cached_property
    def quality(self) -> pd.DataFrame:
        return quality_record.settings(quality_record.load(self.results / QUALITY))

    @cached_property
    def paired(self) -> pd.DataFrame:
        return paired.load(self.results / QUALITY)

    @cached_property
    def stale(self) -> staleness.Record:
        return staleness.load(self.results / STALENESS)

    def value(self, row_id: str) -> float:
        """A published number."""
        return self.rows[row_id].value

    def pick(self, file: str, **wanted: str | int) -> list[str]:
        """Ids of the rows of a file: `source`, `setting` and `hardware` contain a text, other columns are it."""

        def fits(row: Published, key: str, want: str) -> bool:
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

    def prediction(self, row_id: str) -> dict[str, Any]:
        """All that is known of the prediction of a published row."""
        return {str(key): value for key, value in self.predictions.loc[row_id].to_dict().items()}

    def predicted(self, row_id: str) -> float | None:
        """Predicted seconds of a published row; None where there are none, or its own cluster was fitted on it.

        Of one GPU they are those of the model, which is fitted on such rows.
        """
        if row_id not in self.predictions.index:
            return None
        row = self.prediction(row_id)
        counts = (row["role"] == "prediction" or row["devices"] == 1) and pd.notna(row["predicted_s"])
        return float(row["predicted_s"]) if counts else None

    def seconds(self, model: str, cluster: str, px: int, devices: int, method: str) -> float | None:
        """Predicted seconds of a setting with W = 1, its fastest M; None where there is none, or only a fitted one."""
        table, name = self.predictions, "predicted_s"
        if model != MODEL and method not in PRODUCT:
            table, name = self.models, "predicted_latency_s"
            if table.empty:
                return None
        keep = (table.model == model) & (table.cluster == cluster) & (table.resolution == px)
        keep &= (table.method == method) & (table.devices == devices) & (table.status == "ok")
        if table is self.models:
            keep &= table.fastest
        else:
            keep &= ((table.role == "prediction") | (devices == 1)) & ~table.published_oom
            keep &= (table.warmup == WARMUP) | table.warmup.isna()
        return float(table[name][keep].min()) if keep.any() else None

    def error(self, px: int, *methods: str) -> float:
        """What the logarithm of a predicted latency, or a ratio of two, may be off by: that of each in quadrature.

        One GPU's seconds are what the model is fitted on, and count as known.
        """
        known = self.errors
        return hypot(*(known.get((method, px), known[ALL, px]) for method in methods if method != "serial"))

    def case(
        self, model: str, px: int, devices: int, method: str, warmup: int = WARMUP
    ) -> dict[Any, Any] | None:
        """What the fullest device of a case holds and sends; a method without warm-up has one case for all W."""
        table = self.cases
        keep = (table.model == model) & (table.resolution == px) & (table.devices == devices)
        keep &= (
            (table.method == method)
            & (table.warmup.isna() | (table.warmup == warmup))
            & (table.status == "ok")
        )
        return table[keep].iloc[0].to_dict() if keep.any() else None

    def peak_bytes(self, model: str, px: int, devices: int, method: str, warmup: int = WARMUP) -> float:
        """The peak of the fullest device as counted, transformer only; NaN where it was not counted."""
        case = self.case(model, px, devices, method, warmup)
        return float("nan") if case is None else float(case["peak_bytes"])

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


def prediction_errors(table: pd.DataFrame) -> dict[tuple[str, int], float]:
    """(method, resolution) -> what the logarithms of nine in ten predictions are off by, and of `ALL` methods.

    Of rows that are no calibration, not in doubt, not contradicted by another, each number once.
    """
    rows = predictions.cuts(predictions.scored(table))["once"]
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
