"""Per-picture values of settings, so that settings of different numbers of pictures are compared on the same ones.

Picture k has the same prompt and noise in every setting: what is common to two settings is compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.quality.record import load as load_record
from analysis.quality.record import measured

RESAMPLES, SEED = 2000, 0
COVERED = 0.95
ENDS = (1 - COVERED) / 2, (1 + COVERED) / 2
INDEX = ["key", "picture"]


@dataclass(frozen=True)
class Ratio:
    """One mean over another, of the same `n` pictures, with a 95 % bootstrap interval of the pairs."""

    value: float
    low: float
    high: float
    n: int


def values(record: dict[str, Any]) -> pd.DataFrame:
    """A row for each (`key` of the setting, `picture`), a column for each paired metric."""
    rows = measured(record)
    rows = rows.loc[rows["values"].notna(), ["key", "metric", "values"]].explode("values")
    rows["picture"] = rows.groupby(["key", "metric"]).cumcount()
    return rows.astype({"values": float}).pivot(index=INDEX, columns="metric", values="values")


def load(folder: str | Path) -> pd.DataFrame:
    """`values` of the record in a folder."""
    return values(load_record(folder))


def of_studies(record: dict[str, Any], *studies: str) -> dict[str, Any]:
    """The record, its paired metrics over the pictures that all settings of some sweeps have."""
    rows = measured(record)
    keys = rows[[bool({*studies} & {*asked}) for asked in rows.studies]].key
    return on_common(record, values(record), keys)


def ratio(table: pd.DataFrame, one: str, other: str, measure: str) -> Ratio:
    """A setting's mean over another's, on the pictures of both. Raises ValueError when they have none in common."""
    both = together(table, [one, other], measure)
    if both.empty:
        raise ValueError(f"{one} and {other} have no picture in common")
    means = resampled(both.to_numpy())
    low, high = np.quantile(means[:, 0] / means[:, 1], ENDS)
    return Ratio(float(both[one].mean() / both[other].mean()), float(low), float(high), len(both))


def together(table: pd.DataFrame, keys: Iterable[str], measure: str) -> pd.DataFrame:
    """A measure of the pictures that all of these settings have: a row a picture, a column a setting."""
    columns = {key: table.xs(key)[measure].astype(float) for key in keys}
    return pd.DataFrame(columns).dropna() if columns else pd.DataFrame()


def resampled(values: np.ndarray) -> np.ndarray:
    """Means [resamples, settings] of resampled pictures [n, settings], the same pictures for all settings."""
    picks = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    values, sums = np.ascontiguousarray(values), np.zeros((RESAMPLES, values.shape[1]))
    for picked in picks.T:
        sums += values[picked]
    return sums / len(values)


def on_common(record: dict[str, Any], table: pd.DataFrame, keys: Iterable[str]) -> dict[str, Any]:
    """The record with the paired metrics of some settings taken over the pictures that all of these have.

    Means over other pictures differ by these as well. What has no row in the table stays as it is.
    """
    rows = record["rows"].copy()
    known = sorted(set(keys) & set(table.index.get_level_values("key")))
    for measure in table.columns:
        common = together(table, known, measure)
        if len(common):
            # Order statistics: between two infinite neighbours there is nothing to interpolate.
            low, high = np.quantile(resampled(common.to_numpy()), ENDS, axis=0, method="nearest")
            means = [common[key].mean() for key in known]
            own = rows.index[rows.what.isna() & rows.key.isin(known) & (rows.metric == measure)]
            fresh = pd.DataFrame({"value": means, "low": low, "high": high}, known).loc[rows.key[own]]
            rows.loc[own, [*fresh]] = fresh.to_numpy()
            rows.loc[own, ["n", "n_reference"]] = len(common)
    return record | {"rows": rows}
