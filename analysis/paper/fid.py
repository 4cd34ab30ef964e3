"""The counterpart of the paper's FID tables: published FID at the left, at the right what the shipped model shows.

They are neither the same metric nor the same model. What can be compared is the order of methods, and whether a
difference is larger than the floor of its own metric.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.evidence.published import read, stated
from analysis.presentation import tables
from analysis.presentation.columns import Column, Shown, column, words
from analysis.presentation.style import in_order
from analysis.quality.record import (
    INTERVAL,
    Measure,
    floors,
    measures,
    model_words,
    of_study,
    settings,
    task_words,
    unlike_words,
)

FILE = "quality_fid.csv"
AGAINST = {"FID": "real", "FID w/ G.T.": "real", "FID w/ Orig.": "serial"}
"""A published metric -> what the pictures are compared with."""
METHODS = {"Original": "serial", "DistriFusion": "distrifusion", "PipeFusion": "pipefusion"}
DISPLACED = ["naive_patch", *METHODS.values()]
CHOICES = ["method", "devices", "patches", "warmup"]
SET = ["model", "resolution", "n"]
"""What published rows have in common that may be compared with each other."""
APART = "Not the same metric, not the same model: compare the order of methods, not the numbers."


def published(folder: Path) -> pd.DataFrame:
    """The published rows with a number of devices. `remark` is what is uncertain in them."""
    rows = []
    for row_id, row in read(folder / FILE).items():
        devices = re.match(r"\d+", row["n_devices"])
        if row["metric"] not in AGAINST or not devices:
            continue
        counted = re.search(r"(\d+) COCO", row["setting"])
        resolution = re.match(r"\d+", row["resolution"])
        doubts = [re.sub(r"^\d+\[?|\]$", "", row[key]) for key in ("n_devices", "resolution")]
        named_as = [f"N: {doubts[0]}" if doubts[0] else "", f"px: {doubts[1]}" if doubts[1] else ""]
        rows.append(
            {
                "side": "published",
                "model": row["model"],
                "resolution": int(resolution[0]) if resolution else None,
                "n": int(counted[1]) if counted else None,
                "metric": row["metric"],
                "against": AGAINST[row["metric"]],
                "method": METHODS.get(row["method"], row["method"]),
                "devices": int(devices[0]),
                "patches": stated("M", row["setting"]),
                "warmup": stated("W", row["setting"]),
                "value": float(row["value"]),
                "remark": "; ".join(part for part in named_as if part),
                "source": row_id,
            }
        )
    return pd.DataFrame(rows)


def ours(record: dict[str, Any]) -> pd.DataFrame:
    """Our Fréchet distances of the displaced methods and serial, with their intervals, and the floors."""
    table = in_order(of_study(settings(record), "main"))
    below = floors(record)
    rows = []
    for measure in frechet(record):
        known = table[table.method.isin(DISPLACED) & table[measure.key].notna()].to_dict("records")
        rows += [_row(record, measure, row) | {key: row[key] for key in CHOICES} for row in known]
        known = below[below[measure.key].notna()].to_dict("records")
        rows += [_row(record, measure, row) | {"method": "floor", "remark": row["what"]} for row in known]
    return pd.DataFrame(rows)


def frechet(record: dict[str, Any]) -> list[Measure]:
    """The Fréchet distances of the record, one a network and reference."""
    return [one for one in measures(record) if one.metric == "frechet"]


def _row(record: dict[str, Any], measure: Measure, row: dict[Any, Any]) -> dict[str, Any]:
    found = {"side": "ours", "model": record["model"]["name"], "resolution": row["resolution"]}
    found |= {
        "n": row[f"{measure.key}_n"],
        "metric": measure.name,
        "against": measure.against,
        "value": row[measure.key],
    }
    found |= {part: row[f"{measure.key}_{part}"] for part in ("low", "high", "n_reference")}
    return found | {"source": row.get("key") or "floor", "remark": ""}


def joined(record: dict[str, Any], folder: Path) -> pd.DataFrame:
    """Both sides, published rows first."""
    table = pd.concat([published(folder), ours(record)], ignore_index=True)
    whole = dict.fromkeys(["resolution", "n", "n_reference", "devices", "patches", "warmup"], "Int64")
    columns = ["side", *SET, "metric", "against", *CHOICES, "value", "low", "high", "n_reference", "remark"]
    return table.astype(whole)[[*columns, "source"]]


def tabulate(table: pd.DataFrame, record: dict[str, Any]) -> tables.Table:
    """Both sides, and what is what."""
    cells = [
        f"{row['value']:.4g}" + ("" if pd.isna(row["low"]) else f" [{row['low']:.4g}, {row['high']:.4g}]")
        for row in table.to_dict("records")
    ]
    columns: Shown = ["side", "model", "resolution", column("n", heading="pictures n"), "metric", *CHOICES]
    columns += [Column("cell", "value"), "remark", column("source", heading="row or setting")]
    note = f"**{APART}** {about(record)} In brackets: {record.get('interval', INTERVAL)}."
    return tables.table(table, words(table.assign(cell=cells), columns), after=note)


def about(record: dict[str, Any]) -> str:
    """Ours in a sentence: model, task, n and references."""
    found = ours(record)
    found = found[found.method != "floor"]
    task = task_words(of_study(settings(record), "main"))
    each = []
    for metric, part in found.groupby("metric", sort=False):
        counts = (
            " and ".join(str(one) for one in sorted(set(part[key].dropna()))) for key in ("n", "n_reference")
        )
        each.append("{}: n = {} against {}".format(metric, *counts))
    return f"Ours: {model_words(record)}; {task}. {'. '.join(each)}. {unlike_words(record)}".strip()
