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

FILE = "paired.parquet"
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


def load(folder: str | Path) -> pd.DataFrame:
    """Values by (`key` of the setting, `picture`); without a row where there is no file."""
    path = Path(folder) / FILE
    table = pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=[*INDEX, "prompt"])
    return table.drop(columns="prompt").set_index(INDEX)


def of_studies(folder: str | Path, *studies: str) -> dict[str, Any]:
    """The record in a folder, its paired metrics over the pictures that all settings of some sweeps have."""
    record = load_record(folder)
    keys = [one["key"] for one in record["settings"] if set(studies) & set(one["study"])]
    return on_common(record, load(folder), keys)


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
    return np.stack([values[pick].mean(axis=0) for pick in picks])


def on_common(record: dict[str, Any], table: pd.DataFrame, keys: Iterable[str]) -> dict[str, Any]:
    """The record with the paired metrics of some settings taken over the pictures that all of these have.

    Means over other pictures differ by these as well. What has no row in the table stays as it is.
    """
    known = set(table.index.get_level_values("key"))
    wanted = sorted(set(keys) & known)
    found: dict[tuple[str, str], dict[str, float]] = {}
    for measure in table.columns:
        values = together(table, wanted, measure)
        if len(values):
            # Order statistics: between two infinite neighbours there is nothing to interpolate.
            ends = np.quantile(resampled(values.to_numpy()), ENDS, axis=0, method="nearest")
            for at, key in enumerate(wanted):
                numbers = {
                    "value": float(values[key].mean()),
                    "low": float(ends[0, at]),
                    "high": float(ends[1, at]),
                }
                found[key, measure] = numbers | {"n": len(values), "n_reference": len(values)}
    rows = [row | found.get((row["key"], row["metric"]), {}) for row in record["metrics"]]
    return record | {"metrics": rows}
