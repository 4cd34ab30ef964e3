"""Published memory beside ours. A published peak counts the text encoders, ours only the transformer: so what is
compared is what a method adds to one device, or takes from it, put on the published peak of one device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import accounting
from analysis.paper.facts import HYBRID, METHODS, SP, WARMUP, method_of, model_of
from analysis.rows import Row, Rows
from analysis.study import load_study
from analysis.versus.beside import Beside, untestable

GB, GIB = 1e9, 2.0**30
BYTES = {"float32": 4, "16 bits": 2}
UNITS = {"GB": GB, "GiB": GIB}
ASKED = (2, 4, 8)
"""The N that a source may have meant that names none."""
OURS = {SP: "ulysses", **METHODS}
RECORD, FACTS = "records/accounting", "records/accounting"


@dataclass(frozen=True)
class Account:
    """The record of models, the fullest device of each case, and the same cases in the form that Table 1 counts."""

    record: dict[str, Any]
    cases: pd.DataFrame
    printed: pd.DataFrame

    def peak_bytes(
        self, model: str, resolution: int, method: str, devices: int, warmup: int = WARMUP
    ) -> int | None:
        """Of the fullest device; None where the record has no such case.

        How many synchronous steps there are does not change a peak; whether there are any does.
        """
        c = self.cases
        same = (
            (c.model == model) & (c.resolution == resolution) & (c.method == method) & (c.devices == devices)
        )
        found = c[same & (c.status == "ok") & (c.warmup.isna() | (c.warmup == warmup))]
        return None if found.empty else int(found.peak_bytes.iloc[0])

    def difference_gb(
        self, model: str, resolution: int, method: str, devices: int, warmup: int = WARMUP
    ) -> float | None:
        """What the fullest of N devices has at its peak beyond one device that does everything."""
        one = self.peak_bytes(model, resolution, "serial", 1)
        many = self.peak_bytes(model, resolution, method, devices, warmup)
        return None if one is None or many is None else (many - one) / GB


def models(results: Path) -> dict[str, dict[str, Any]]:
    """Layers, parameters and sizes by model."""
    content: dict[str, dict[str, Any]] = load_study(results / FACTS).facts["models"]
    return content


def load(results: Path) -> Account:
    """The committed record."""
    record, table = accounting.load(results / "records/accounting")
    cases = accounting.fullest(table)
    return Account(record, cases, accounting.as_printed(cases, results))


def beside(row: Row, rows: Rows, account: Account) -> Beside:
    """Any row of memory.csv."""
    metric, model = row["metric"], model_of(row)
    if metric.startswith("text encoders"):
        return untestable("no text encoder of that size is here, only the transformers")
    if model not in account.record["models"]:
        return untestable(f"{model} is not among the models counted")
    parameters = account.record["models"][model]["parameters"]
    if metric == "DiT params":
        words = "parameters of the stock diffusers model, counted"
        return Beside(parameters / GB, "measured", words, FACTS)
    if metric == "DiT on disk":
        return on_disk(row, parameters)
    if metric == "memory ratio vs SP":
        return ratio(row, rows, account)
    return peak(row, rows, account)


def on_disk(row: Row, parameters: int) -> Beside:
    """Parameters times bytes: the nearest of the types and units that files come in."""
    readings = {
        f"{name}, {unit}": parameters * size / base
        for name, size in BYTES.items()
        for unit, base in UNITS.items()
    }
    best = min(readings, key=lambda name: abs(readings[name] - float(row["value"])))
    return Beside(
        readings[best], "computed", f"parameters as {best}, the nearest of {len(readings)} readings", FACTS
    )


def peak(row: Row, rows: Rows, account: Account) -> Beside:
    """A peak of N devices; where N is not said, only whether it is above or below that of one."""
    if row["n_devices"] == "1":
        return untestable("counts the text encoders; it is what the other rows are compared with")
    method, base = OURS.get(row["method"]), base_of(row, rows)
    if method is None or method_of(row, max(ASKED)) == HYBRID:
        return untestable(f"{row['method']} is a hybrid of several methods, none of the methods here")
    model, resolution = model_of(row), int(row["resolution"])
    if base is None or account.peak_bytes(model, resolution, "serial", 1) is None:
        return untestable(
            "the source has no one device" if base is None else f"{resolution} px was not counted"
        )
    if not row["n_devices"].isdecimal():
        return any_devices(row, base, method, account)
    devices, alone = int(row["n_devices"]), float(base["value"])
    difference = account.difference_gb(model, resolution, method, devices)
    if difference is None:
        return untestable(f"N={devices} was not counted")
    said = f"one device as published ({alone:g} GB) and our difference {difference:+.2f} GB; published "
    said += f"{float(row['value']) - alone:+.2f} GB"
    ring = account.difference_gb(model, resolution, "ring", devices)
    if row["method"] == SP and ring is not None:
        said += f"; SP read as Ulysses, Ring {ring:+.2f} GB"
    without = account.difference_gb(model, resolution, method, devices, warmup=0)
    if method == "pipefusion" and without is not None:
        said += f"; without a synchronous step {without:+.2f} GB"
    return Beside(alone + difference, "predicted", said, RECORD)


def any_devices(row: Row, base: Row, method: str, account: Account) -> Beside:
    """The source does not say N: above or below one device, if all N that may be meant agree on it."""
    found = {n: account.difference_gb(model_of(row), int(row["resolution"]), method, n) for n in ASKED}
    differences = {n: gb for n, gb in found.items() if gb is not None}
    listed = ", ".join(f"N={n} {gb:+.2f} GB" for n, gb in differences.items())
    if row["value"] == "OOM" or len({gb > 0 for gb in differences.values()}) != 1:
        return untestable(f"N is not said, and it decides: ours beside one device {listed}")
    theirs = float(row["value"]) - float(base["value"])
    above = next(iter(differences.values())) > 0
    verdict = f"{'as' if above == (theirs > 0) else 'unlike'} published ({theirs:+.2f} GB)"
    words = f"N is not said; {'more' if above else 'less'} than one device at any N, {verdict}: {listed}"
    return Beside(None, "predicted", words, RECORD)


def ratio(row: Row, rows: Rows, account: Account) -> Beside:
    """The peak of one method over SP's, in %: from ours, with what the published peaks themselves give beside it."""
    mine, other = max_memory(row, row["method"], rows), max_memory(row, SP, rows)
    if mine is None or other is None:
        return untestable("no published peaks of this model and size")
    top, below = peak(mine, rows, account), peak(other, rows, account)
    if not isinstance(top.ours, float) or not isinstance(below.ours, float):
        return untestable(f"{top.reason}; {below.reason}")
    printed = 100 * float(mine["value"]) / float(other["value"])
    said = f"{top.ours:.2f} GB / {below.ours:.2f} GB, both on the published peak of one device; "
    said += f"the published peaks give {printed:.1f} %"
    return Beside(100 * top.ours / below.ours, "predicted", said, RECORD)


def base_of(row: Row, rows: Rows) -> Row | None:
    """The same source's peak of one device."""
    keys = ("source", "model", "resolution", "metric")
    return next((one for one in rows.values() if one.get("n_devices") == "1" and alike(one, row, keys)), None)


def max_memory(row: Row, method: str, rows: Rows) -> Row | None:
    """The published peak of a method in the task of a row."""
    wanted = {**row, "metric": "max memory", "method": method}
    keys = ("metric", "method", "model", "resolution", "n_devices")
    return next((one for one in rows.values() if alike(one, wanted, keys)), None)


def alike(one: Row, other: Row, keys: tuple[str, ...]) -> bool:
    return all(one.get(key) == other[key] for key in keys)
