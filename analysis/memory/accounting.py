"""What each device of a full-size model holds and sends: tables and a figure over a record of `experiment=accounting`.

Of a case (model, size, method, N) the tables show the fullest device, each column on its own; the record has them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.evidence.published import read
from analysis.memory import table1
from analysis.presentation.columns import COUNT, Column, Shown, column, mib, wide, words
from analysis.presentation.style import ORDER, in_order, label
from analysis.presentation.tables import Table, markdown
from analysis.records.committed import WHOLE
from analysis.records.study import load_study, plain_rows

DEVICES, PIXELS = 8, 2048
"""What the tables of one N, and the figure of one size, show where the record has it."""
KEYS = ["model", "resolution", "method", "devices", "warmup"]
TOTALS = ["devices_bytes", "copies_bytes", "model_bytes", "reconciles", "agrees", "copied"]
"""Columns of a case: each of its devices has them."""


def load(folder: str | Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """The record (models and totals of the cases) and one row per device; of no square `resolution` is the height."""
    record = load_study(Path(folder))
    rows = record.rows
    rows = rows.assign(
        other_bytes=rows.buffer_bytes + rows.comm_bytes + rows.given_bytes,
        resolution=rows.resolution.fillna(rows.height).astype("int64"),
    )
    return record.facts | {"cases": cases(rows)}, rows.drop(columns=["key", *TOTALS])


def cases(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Models, methods, N and W with their totals; cases that differ in nothing but the size are one."""
    keys = ["model", "method", "devices", "warmup", "status", "reason", *TOTALS]
    found: dict[str, dict[str, Any]] = {}
    for case in plain_rows(rows.drop_duplicates("key")):
        rest = {key: case[key] for key in keys}
        one = found.setdefault(json.dumps(rest), rest | {"resolutions": []})
        one["resolutions"].append(case["resolution"])
    return [case | {"copies_by_part": json.loads(case["copied"] or "{}")} for case in found.values()]


def fullest(table: pd.DataFrame) -> pd.DataFrame:
    """One row a case: of every column of bytes the most that any device has; why, where it was skipped."""
    most = {str(name): "max" for name in table if str(name).endswith("_bytes")}
    first = dict.fromkeys(["status", "reason", "branches", "patches"], "first")
    cases = table.groupby(KEYS, sort=False, dropna=False, as_index=False).agg({**first, **most})
    return cases.astype({"warmup": "Int64"})


def as_printed(cases: pd.DataFrame, results: Path) -> pd.DataFrame:
    """Cases in the form that Table 1 counts: tensor parallelism of models with a cross-attention leaves that whole."""
    whole = fullest(load(results / WHOLE)[1])
    split = (cases.method == "tensor") & cases.model.isin(whole.model)
    return pd.concat([cases[~split], whole], ignore_index=True)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Of the cases at the first W that ran, each method at N = `DEVICES`, or at the most N below that it can do."""
    ran = table[(table.status == "ok") & (table.devices <= DEVICES) & first_warmup(table)]
    last = ran.groupby(["model", "resolution", "method"]).devices.transform("max")
    return ran[ran.devices == last]


def first_warmup(table: pd.DataFrame) -> pd.Series:
    """Rows of methods without a warm-up, and of the others at the W that the tables are about."""
    known = table.warmup.dropna()
    return table.warmup.isna() | (table.warmup == (known.iloc[0] if len(known) else 0))


def memory(cases: pd.DataFrame, model: str) -> pd.DataFrame:
    """To read, one row per method: the fullest device's parameters, and by size K and V, activations, bytes sent."""
    part = in_order(cases[cases.model == model].sort_values("resolution", kind="stable"))
    most = part.groupby(["method", "devices"])["param_bytes"].transform("max")
    columns: Shown = [
        "method",
        "devices",
        *(column(f"{kind}_bytes", unit="GiB") for kind in ("param", "kv", "activation")),
    ]
    text = words(part.assign(param_bytes=most), [*columns, "step_sent_bytes", "resolution"])
    return wide(text, ["method", "N", "params GiB"], "px", " px")


def copies(record: dict[str, Any], model: str) -> Iterator[str]:
    """What is on more than one of `DEVICES`, a sentence for each method, those that hold everything together."""
    found: dict[str, list[str]] = {}
    for case in model_cases(record, model):
        if case["devices"] == DEVICES and case["status"] == "ok":
            whole = case["devices_bytes"] == DEVICES * case["model_bytes"]
            parts = ", ".join(f"{part} {mib(size)} MiB" for part, size in case["copies_by_part"].items())
            names = found.setdefault("the whole model" if whole else parts or "nothing", [])
            if label(case["method"]) not in names:
                names.append(label(case["method"]))
    for what, names in found.items():
        yield f"{', '.join(names)}: {what}"


def model_cases(record: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """The cases of a model, methods in the order they always have."""
    found = [case for case in record["cases"] if case["model"] == model]
    return sorted(found, key=lambda case: (ORDER.index(case["method"]), case["devices"]))


def sums(record: dict[str, Any]) -> pd.DataFrame:
    """To read, one row per model: diffusers' count, the cases that add up to it, PipeFusion's sum spelt out."""
    rows = []
    for model, facts in record["models"].items():
        done = [case for case in model_cases(record, model) if case["status"] == "ok"]
        exact = sum(len(case["resolutions"]) for case in done if case["reconciles"])
        runs = sum(len(case["resolutions"]) for case in done)
        row = {"model": model, "parameters": facts["diffusers_parameters"]}
        row["exact"] = (
            f"{exact} of {runs}" if facts["diffusers_parameters"] == facts["parameters"] else "none"
        )
        for case in done:
            if case["method"] == "pipefusion" and case["devices"] <= DEVICES:
                row |= {key: case[key] for key in ("devices", "devices_bytes", "copies_bytes", "model_bytes")}
                row["copied"] = ", ".join(case["copies_by_part"]) or "nothing"
        rows.append(row)
    columns: Shown = [
        "model",
        column("parameters", heading="parameters in diffusers"),
        Column("exact", "cases that add up"),
    ]
    columns += [column("devices", heading="PipeFusion N")]
    for name, heading in (("devices", "bytes on all devices"), ("copies", "- copies"), ("model", "= model")):
        columns.append(Column(f"{name}_bytes", heading, kind=COUNT, format="{:,.0f}".format))
    columns.append(Column("copied", "copied"))
    frame = pd.DataFrame(rows).reindex(columns=[one if isinstance(one, str) else one.name for one in columns])
    return words(frame, columns)


def reconciled(record: dict[str, Any]) -> str:
    """In how many cases the devices hold the model exactly, and every byte is the closed form's."""
    done = [case for case in record["cases"] if case["status"] == "ok"]
    runs, exact, agreeing = (
        sum(len(case["resolutions"]) for case in done if all(case[key] for key in keys))
        for keys in ((), ("reconciles",), ("agrees",))
    )
    other = sum(len(case["resolutions"]) for case in record["cases"] if case["status"] != "ok")
    return (
        f"In {exact} of {runs} cases what the devices hold, less the copies, is diffusers' own count of the model to "
        f"the byte; in {agreeing} of {runs} parameters, K and V, buffers and the bytes of a step, sent and received, "
        f"are those of the closed forms on every device ({other} more are skipped, see below)."
    )


def skipped(record: dict[str, Any]) -> pd.DataFrame:
    """To read, why combinations cannot be: one row a model, method and reason."""
    rows: dict[tuple[str, str], tuple[list[str], set[int]]] = {}
    for model in record["models"]:
        for case in model_cases(record, model):
            if case["status"] != "ok":
                names, sizes = rows.setdefault((model, case["reason"]), ([], set()))
                sizes |= {*case["resolutions"]}
                if label(case["method"]) not in names:
                    names.append(label(case["method"]))
    cells = [
        (model, ", ".join(names), ", ".join(map(str, sorted(sizes))), reason)
        for (model, reason), (names, sizes) in rows.items()
    ]
    return pd.DataFrame(cells, columns=["model", "methods", "px", "reason"])


def models(*counted: tuple[dict[str, Any], pd.DataFrame]) -> pd.DataFrame:
    """To read, one row a model of records and their cases, for the README: its sizes, of several the smallest, and what
    one of N devices holds of it under PipeFusion."""
    rows: list[dict[str, Any]] = []
    for record, cases in counted:
        piped = shown(cases[cases.method == "pipefusion"]).sort_values("resolution", kind="stable")
        smallest = piped.drop_duplicates("model").set_index("model")
        for model, facts in record["models"].items():
            if model in smallest.index:
                case = smallest.loc[model]
                kept = {key: case[key] for key in ("param_bytes", "kv_bytes", "branches", "devices")}
                kept |= {"parameters": facts["diffusers_parameters"], "layers": facts["layers"]}
                kept |= {"size": size_text(facts, case.resolution)}
                kept |= {"tokens": facts["tokens"][str(case.resolution)]}
                rows.append({"model": model, "model_share": case.param_bytes / facts["param_bytes"]} | kept)
    table = pd.DataFrame(rows)
    held = column(
        "param_bytes", heading=f"PipeFusion on {table.devices.max()}: params", unit="GiB per device"
    )
    columns: Shown = ["model", "parameters", "layers", Column("size", "size"), "tokens", "branches", held]
    return words(table, [*columns, "model_share", column("kv_bytes", unit="GiB per device")])


def size_text(facts: dict[str, Any], resolution: int) -> str:
    """`1024 px`, or of a video height and width, and its pictures."""
    if facts.get("frames") is None:
        return f"{resolution} px"
    return f"{facts['height']} x {facts['width']} px, {facts['frames']} pictures"


def tabulate(record: dict[str, Any], table: pd.DataFrame, results: Path | None) -> Table:
    """The fullest device of every case; to read, sums, Table 1 of the published rows in `results`, methods by model."""
    cases = fullest(table)
    keys = [*KEYS, "devices_bytes", "copies_bytes"]
    totals = pd.DataFrame([{key: case.get(key) for key in keys} for case in spread(record["cases"])])
    totals = totals.astype(dict.fromkeys(["warmup", *keys[-2:]], "Int64"))
    rows = cases.merge(totals, on=KEYS, how="left")
    chosen = shown(cases)
    text = f"# Every full-size model, every method, {record['dtype']}\n\n{reconciled(record)} {record['note']}\n\n"
    text += f"## Parameters\n\n{markdown(sums(record))}\n"
    if results is not None:
        text += f"## Table 1 of the paper\n\n{table1.READING.format(devices=DEVICES)}\n\n"
        ratios = table1.claims(record, as_printed(cases, results), read(results / "published"), DEVICES)
        text += f"{markdown(table1.readable(ratios))}\n"
    text += f"## Model by model\n\nThe fullest device, each column on its own, at N = {DEVICES} or the most below it "
    text += "that the method can do.\n\n"
    for model, facts in record["models"].items():
        if model in set(chosen.model):
            text += f"### {model}: {facts['layers']} layers, {facts['diffusers_parameters']:,} parameters\n\n"
            text += f"{markdown(memory(chosen, model))}\n"
            text += f"Copies on {DEVICES} devices, all together: {'; '.join(copies(record, model))}.\n\n"
    text += f"## What cannot be\n\n{markdown(skipped(record))}"
    return Table(rows, text)


def spread(cases: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The cases of a record, one a size again."""
    for case in cases:
        for resolution in case["resolutions"]:
            yield case | {"resolution": resolution}
