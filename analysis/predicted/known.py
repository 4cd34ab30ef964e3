"""What is known beside a plan: the interval of its latency and its distance to serial, from the committed records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.evidence.intervals import load_intervals
from analysis.predicted.planning import SECONDS
from analysis.records.committed import QUALITY
from analysis.records.study import load_study, plain_rows

MEASURED: dict[str, Any] = {
    "metric": "latent_error",
    "against": "serial",
    "steps": 20,
    "guidance_scale": 2.0,
    "scheduler": "shipped",
}
"""The distances that stand for exactness, and the request that they were measured with."""
READ = ("peak_bytes", "missing_bytes", *SECONDS, "bottleneck", "text_encoder_bytes", "vae_bytes")
"""What is read of settings that fit, and what is missing where none was planned."""


def distances(results: Path) -> dict[tuple[str, int, int], float]:
    """(method, M, W) -> distance of the latents to serial's, of the most pictures; of others than PipeFusion M is N."""
    rows = load_study(results / QUALITY).rows
    for name, value in MEASURED.items():
        rows = rows[rows[name] == value]
    rows = rows[rows.warmup.notna()].sort_values("n", kind="stable")
    patches = rows.patches.fillna(rows.devices)
    keys = zip(rows.method, patches.astype(int), rows.warmup.astype(int), strict=True)
    return dict(zip(keys, rows.value.astype(float), strict=True))


def beside(rows: pd.DataFrame, results: Path, name: str = "predicted_latency_s") -> pd.DataFrame:
    """The rows with the interval of each latency and the distance to serial, as far as they are known; `name` has the
    seconds."""
    known, made = distances(results), load_intervals(results)
    rows = rows.reindex(columns=[*rows, *(column for column in (name, *READ) if column not in rows)])
    found = []
    for row in plain_rows(rows):
        seconds, low_s, high_s = row.get(name), None, None
        if seconds is not None:
            px = round((row["height"] * row["width"]) ** 0.5)
            low_s, high_s = made.around(seconds, family(row), px, row["cluster"], bool(row.get("borrowed")))
        error = 0.0 if row.get("exact") else known.get((row["method"], cuts(row), row["warmup"]))
        found.append({"low_s": low_s, "high_s": high_s, "relative_error": error})
    return rows.assign(**pd.DataFrame(found, rows.index).astype(float))


def family(row: Mapping[str, Any]) -> str:
    """The method whose errors are a row's: of an exact product, which goes by its degrees, that of the first of these
    axes that it has."""
    if not row.get("exact"):
        return str(row["method"])
    axes = {part.split()[0] for part in row["parallel"].split(" x ")}
    methods = {"pipe": "sync_pipeline", "tensor": "tensor", "ulysses": "ulysses", "ring": "ring"}
    return next((method for axis, method in methods.items() if axis in axes), "serial")


def cuts(row: Mapping[str, Any]) -> int:
    """What the distance to serial grows with: patches, or stages of a method whose patch is the whole image."""
    return int(row.get("patches") or row.get("pipe") or 0)
