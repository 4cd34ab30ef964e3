"""Tables of quality: the methods beside each other with the floors of each metric, and every sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.presentation.columns import Column, Shown, words
from analysis.presentation.looks import ORDER, in_order, label, method_order
from analysis.quality import paired
from analysis.quality.record import (
    INTERVAL,
    METRICS,
    PARTS,
    SETTING,
    SYMBOLS,
    TASK,
    Measure,
    floors,
    known,
    measured,
    measures,
    model_words,
    of_study,
    setting_name,
    settings,
    task_words,
    unlike,
    unlike_words,
)

TAIL = 0.95
LEADING = ["study", "key", *SETTING, "status", "reason", "sampled_as", "equal_error", "equal_n", "pictures"]
LEADING += ["exact"]


def main(record: dict[str, Any]) -> pd.DataFrame:
    """One row a setting of the main study, one for each method that has none, then one a floor (`what`)."""
    rows = of_study(settings(record), "main")
    absent = [method for method in ORDER if method not in set(rows.method)]
    reason = "no setting of the main study"
    missing = pd.DataFrame({"method": absent, "status": "missing", "reason": reason, "exact": False})
    rows = in_order(pd.concat([rows, missing], ignore_index=True)) if absent else in_order(rows)
    rows["remark"] = _remarks(record, rows)
    table = pd.concat([rows, floors(record).assign(exact=False)], ignore_index=True)
    return table[["what", *LEADING[1:], *_columns(measures(record)), "remark"]]


def readable_main(record: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """`main` to read; a floor has its name where a method stands."""
    here = set(table[table.what.isna()].px.dropna())
    names = [
        label(row["method"]) if pd.isna(row["what"]) else _floor_name(row, here)
        for row in table.to_dict("records")
    ]
    task = [key for key in TASK if table[table.what.isna()][key].nunique() > 1]
    columns: Shown = [Column("name", "method"), *chosen(table), *task]
    return _readable(table.assign(name=names), columns, measures(record))


def sweeps(record: dict[str, Any]) -> pd.DataFrame:
    """One row a sweep and setting: paired metrics, Fréchet distances, and the latent error of the worst pictures.

    Paired metrics are of the pictures that all settings of a sweep have. `latent_error_tail` is what 95 % of these
    stay below.
    """
    every, pairs = settings(record).explode("study"), paired.values(record)
    parts = []
    for place, study in enumerate(dict.fromkeys(every.study.dropna())):
        keys = list(every[every.study == study].key)
        table = settings(paired.on_common(record, pairs, keys)).explode("study")
        table = table[(table.study == study) & (study != "main")]
        parts.append(
            table.assign(place=place, latent_error_tail=table.key.map(tails(pairs, keys)).astype(float))
        )
    table = pd.concat(parts, ignore_index=True)
    table["remark"] = _remarks(record, table)
    by = ["place", "method", "steps", "guidance_scale", "scheduler", "devices", "patches", "warmup"]
    table = table.sort_values(by, key=method_order, kind="stable", ignore_index=True)
    columns = _columns(_swept(record))
    return table[[*LEADING, *columns, "latent_error_tail", "remark"]]


def readable_sweeps(record: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """`sweeps` to read."""
    always = ("steps", "guidance_scale", "scheduler")
    task = [key for key in TASK if key in always or table[key].nunique() > 1]
    heading = f"latent error, {100 * TAIL:.0f} % of pictures below"
    tail = [Column("latent_error_tail", heading, format=METRICS["latent_error"].write)]
    last = tail if table.latent_error_tail.notna().any() else []
    return _readable(table, ["study", "method", *chosen(table), *task], _swept(record), last)


def tails(pairs: pd.DataFrame, keys: list[str]) -> dict[str, float]:
    """Setting -> the latent error that 95 % of the pictures that all have stay below; empty without any pairs."""
    known = sorted(set(keys) & set(pairs.index.get_level_values("key")))
    errors = paired.together(pairs, known, "latent_error").quantile(TAIL)
    return {str(key): float(error) for key, error in errors.items()}


def notes(record: dict[str, Any], table: pd.DataFrame) -> str:
    """What the columns are: model and task, then for each measure its preprocessing and how many pictures."""
    rows = table[table.method.notna()]
    lines = [f"**Measured** on {model_words(record)}; {task_words(rows[rows.devices.notna()])}."]
    drawn = ", ".join(
        f"{count} {name.replace('_', ' ')}"
        for name, count in record["prompts"].items()
        if isinstance(count, int)
    )
    lines[0] += f" Prompts drawn from: {drawn}. In brackets: {record.get('interval', INTERVAL)}."
    shown = [measure for measure in measures(record) if measure.key in table]
    lines += [_about(record, rows, measure) for measure in shown]
    lines += [f"- not measured: {name}: {why}" for name, why in _unmeasured(record).items()]
    lines += [f"- {unlike_words(record)}"] if len(unlike(record)) else []
    return "\n".join([lines[0], "", *lines[1:]])


def _about(record: dict[str, Any], rows: pd.DataFrame, measure: Measure) -> str:
    ours = known(measured(record))
    ours = ours[(ours.measure == measure) & ours.key.isin(rows.key) & np.isfinite(ours.value)]
    notes = {*ours.preprocessing.dropna(), *ours.note.dropna()}
    counts = [f"n = {count(rows[f'{measure.key}_n'])}"]
    if rows[f"{measure.key}_n_reference"].notna().any():
        counts.append(f"{count(rows[f'{measure.key}_n_reference'])} reference pictures")
    return f"- {measure.name}: {'; '.join([*sorted(notes), ', '.join(counts)])}"


def _unmeasured(record: dict[str, Any]) -> dict[str, str]:
    """Measures without any value -> why, as far as the record says."""
    rows, there = measured(record), set(measures(record))
    missing = rows[rows.metric.notna() & ~rows.measure.isin(there)]
    notes = zip(missing.measure, missing.note, strict=True)
    return {measure.name: note or "no value in the record" for measure, note in notes}


def _columns(shown: list[Measure]) -> list[str]:
    return [column for one in shown for column in (one.key, *(f"{one.key}_{part}" for part in PARTS))]


def _swept(record: dict[str, Any]) -> list[Measure]:
    return [one for one in measures(record) if one.looks.paired or one.metric == "frechet"]


def _floor_name(row: dict[Any, Any], here: set[Any]) -> str:
    where = "" if row["px"] in here else f", {row['px']} px"
    return f"*floor: {row['what']}{where}*"


def _readable(
    table: pd.DataFrame, columns: Shown, shown: list[Measure], last: Sequence[Column] = ()
) -> pd.DataFrame:
    """Leading columns, a cell with its interval for each measure, how many pictures, and remarks."""
    table = table.copy()
    for one in shown:
        table[one.key] = [cell(one, row) for row in table.to_dict("records")]
    for key, by_picture in (("n", False), ("n_paired", True)):
        keys = [f"{one.key}_n" for one in shown if one.looks.paired is by_picture]
        table[key] = [count(row) for _, row in table[keys].iterrows()]
    measured = [Column(one.key, f"{one.name} {one.looks.better}".strip()) for one in shown]
    counts: Shown = [Column("n", "n"), Column("n_paired", "n paired"), "remark"]
    return words(table, [*columns, *measured, *last, *counts])


def cell(measure: Measure, row: dict[Any, Any]) -> str | None:
    """A value with its interval in brackets; `as serial` where a distance to serial is one to itself."""
    value, write = row[measure.key], measure.looks.write
    if row["exact"] and row["method"] != "serial" and measure.from_serial:
        return "as serial"  # a number would be of serial's pictures against themselves
    if pd.isna(value):
        return None
    low, high = row[f"{measure.key}_low"], row[f"{measure.key}_high"]
    return write(value) if pd.isna(low) or pd.isna(high) else f"{write(value)} [{write(low)}, {write(high)}]"


def count(values: pd.Series) -> str | None:
    """How many pictures: one number, or the range of several."""
    known = sorted(set(values.dropna()))
    return None if not known else str(known[0]) if len(known) == 1 else f"{known[0]}–{known[-1]}"


def _remarks(record: dict[str, Any], table: pd.DataFrame) -> list[str | None]:
    """Why there are no numbers, or whose pictures they are and how well that was checked, or what is missing."""
    rows, there = measured(record), set(measures(record))
    names = {one["key"]: setting_name(one) for one in rows.drop_duplicates("key").to_dict("records")}
    empty = rows[rows.value.isna() & rows.note.notna() & rows.measure.isin(there)]
    notes: dict[str, list[str]] = {}
    for row in empty.to_dict("records"):
        notes.setdefault(row["key"], []).append(f"{row['measure'].name}: {row['note']}")
    remarks: list[str | None] = []
    for row in table.to_dict("records"):
        words = list(notes.get(str(row.get("key")), []))
        if isinstance(row["status"], str) and row["status"] != "ok":
            words.insert(0, f"{row['status']}: {row['reason']}")
        elif isinstance(row["sampled_as"], str) and row["sampled_as"] != row["key"]:
            words.insert(0, f"pictures of {names.get(row['sampled_as'], row['sampled_as'])}: {_equal(row)}")
        elif not pd.isna(row["equal_error"]):
            other = names.get(row["equal_to"], row["equal_to"])
            words.insert(0, f"sampled itself, since against {other}: {_equal(row)}")
        remarks.append("; ".join(words) or None)
    return remarks


def _equal(row: dict[Any, Any]) -> str:
    if pd.isna(row["equal_error"]):
        return "difference not measured"
    much = f"largest relative difference {row['equal_error']:.1e}" if row["equal_error"] else "no difference"
    return f"{much} on {row['equal_n']} pictures"


def chosen(table: pd.DataFrame) -> list[str]:
    """N, M and W, and the degrees beside the method's own where there are any."""
    return [*SYMBOLS, *(["product"] if table["product"].notna().any() else [])]
