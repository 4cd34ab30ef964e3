"""Tables of how stale the K, V of each method are and what that does, over one record of `experiment=staleness`.

Shares and errors are averaged over token rows: each job counts by the rows that it computes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.presentation.columns import Column, Shown, column, digits, shares
from analysis.presentation.looks import in_order, label
from analysis.records import study

SETTING = ["method", "devices", "patches", "warmup"]
MORE = ["parallel", "split", "ring_form", "text"]
"""Columns that may tell settings apart where these do not."""
QUANTITIES = {
    "latent": "latents, the model's input",
    "hidden": "hidden states, the blocks' inputs",
    "k": "K",
    "v": "V",
}
"""What changes from step to step -> what it is called."""
FRESHNESS: Shown = [
    *SETTING,
    *shares(fresh_mean="fresh", fresh_min="least fresh job", fresh_max="freshest job"),
    Column("stale_age", "age of the rest, steps", format=digits(2)),
    Column("oldest", "oldest, steps"),
    *shares(never_first="never written, step 0", never_later="never written, later"),
    "status",
]
ERRORS: Shown = [
    *SETTING,
    "attention_error",
    *shares(worst_step_error="worst step"),
    Column("worst_step", "which"),
    "k_error",
    "v_error",
    *shares(latent_error="final latents", latent_sd="± sd"),
    "status",
]
REDUNDANCY: Shown = [
    Column("quantity", "change from step to step of", format=QUANTITIES.__getitem__),
    *shares(step_1="first", first="first quarter", rest="later", least="least"),
    Column("least_step", "at step"),
    *shares(last="last"),
]
"""What readers see of each table."""
AHEAD = 0.25
"""The first steps that the table tells apart from the rest, as a share of all."""
FRESHNESS_NOTE = """
Shares of the image tokens that a query attends to, after the warm-up (of W = 0: after the first step), over all ranks,
layers and jobs; S = {steps}, the sizes of {model}. Measured by the methods' own attention, with a model that computes
nothing. Closed forms: PipeFusion's patch m (from 0) of M sees (m+1)/M fresh, (M+1)/(2M) on average, DistriFusion and
naive patch 1/N; what is not fresh is one step old, but for naive patch as old as the last synchronous step.
"""
ERROR_NOTE = """
{model}, S = {steps}, guidance {guidance:g}, {pictures} pictures from as many prompts. Attention, K and V: relative
errors ||stale - fresh|| / ||fresh|| within the method's own run, over all displaced steps, layers and patches, where K
and V count stale tokens only; "worst step" is the largest mean over layers of one step. Latents: against serial's from
the same noise, mean and standard deviation over the pictures. A method with patches of its own ran on N = 1: its result
does not depend on N.
"""
REDUNDANCY_NOTE = """
||x_t - x_(t-1)|| / ||x_t||, serial on {model}, S = {steps}, guidance {guidance:g}, mean over layers, bands of rows,
{pictures} pictures and the guidance branches. The first {ahead} changes stand apart from the rest.
"""


@dataclass(frozen=True)
class Record:
    """`facts` of the runs on the model, and a table a kind of rows: `probes` and `runs` have one for each setting."""

    facts: dict[str, Any]
    probes: pd.DataFrame
    runs: pd.DataFrame
    freshness: pd.DataFrame
    redundancy: pd.DataFrame
    error: pd.DataFrame
    steps: pd.DataFrame
    map: pd.DataFrame

    @property
    def source(self) -> dict[str, Any]:
        """What captions and notes say of the runs."""
        return {
            "model": self.facts["model"],
            "steps": len(self.facts["timesteps"]),
            "pictures": len(self.facts["prompts"]),
            "guidance": self.facts["guidance_scale"],
        }

    @property
    def probed(self) -> dict[str, Any]:
        """Steps and model of the probes."""
        return dict(self.probes.iloc[0][["steps", "model"]])

    def name(self, run: Mapping[Any, Any]) -> str:
        """A run as figures call it: `PipeFusion, M = 4, W = 1`; N where it makes a difference."""
        words, (n, m, w) = [label(run["method"])], (run[key] for key in SETTING[1:])
        words += [f"N = {n}"] if pd.isna(m) and n > 1 else []
        words += [f"M = {m}"] if not pd.isna(m) else []
        words += [str(run[key]) for key in more(self.runs)]
        return ", ".join(words + ([f"W = {w}"] if not pd.isna(w) else []))


def load(folder: str | Path) -> Record:
    """The record of a run directory. Raises OSError, and ValueError when it is broken or newer."""
    return parts(study.load_study(Path(folder)))


def parts(record: study.Record) -> Record:
    """The rows by table; ages become columns, `age_0` those that are fresh."""
    rows = record.rows
    names = ("freshness", "redundancy", "error", "steps", "map")
    tables = {name: plain(rows[(rows.table == name) & (rows.status == "ok")]) for name in names}
    seen = tables["freshness"]
    ages = [[*ages] for ages in seen.get("ages", [])]
    tables["freshness"] = seen.join(pd.DataFrame(ages, seen.index).add_prefix("age_"))
    return Record(record.facts, *(rows[rows.table == name] for name in ("probe", "run")), **tables)


def plain(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, whole numbers as numpy's where none is missing."""
    whole = {name: "int64" for name in rows.select_dtypes("Int64") if rows[name].notna().all()}
    return rows.astype(whole)


def more(rows: pd.DataFrame) -> list[str]:
    """The columns that tell settings apart besides `SETTING`, where these do not."""
    return [name for name in MORE if rows[name].nunique() > 1] if rows.duplicated(SETTING).any() else []


def headed(shown: Shown, names: Iterable[Hashable]) -> Shown:
    """The columns to read, with those of `MORE` among the names behind the setting's."""
    return [*SETTING, *(name for name in MORE if name in [*names]), *shown[len(SETTING) :]]


def weighted_mean(values: pd.Series, rows: pd.Series) -> float:
    """A mean in which each job counts by its token rows; NaN of nothing."""
    there = values.notna()
    return float(np.average(values[there], weights=rows[there])) if there.any() else float("nan")


def steady(table: pd.DataFrame, setting: Mapping[Any, Any]) -> pd.DataFrame:
    """The rows of steps after a setting's warm-up; with W = 0 not the first step, whose buffers are empty."""
    warmup = setting["warmup"]
    return table[table.step >= (0 if pd.isna(warmup) else max(warmup, 1))]


def means_by_step(table: pd.DataFrame, value: str) -> pd.Series:
    """The `weighted_mean` of a column, by step."""
    found = {int(str(step)): weighted_mean(part[value], part.rows) for step, part in table.groupby("step")}
    return pd.Series(found, dtype=float)


def of_setting(table: pd.DataFrame, setting: Mapping[Any, Any]) -> pd.DataFrame:
    """The rows of one setting."""
    return table[table.key == setting["key"]]


def freshness(record: Record, names: Sequence[str] = ()) -> pd.DataFrame:
    """One row a probed setting: shares of what is attended to that are fresh, and the ages of the rest in steps.

    `fresh_mean`, `fresh_min`, `fresh_max`: shares over the jobs; `stale_age`: the mean age of what is not fresh;
    `oldest`: the largest age; `never_first`: the share never written in step 0. `names`: of `MORE`.
    """
    found = []
    ages = [name for name in record.freshness if str(name).startswith("age_")]
    for row in record.probes.to_dict("records"):
        seen = of_setting(record.freshness, row)
        if not seen.empty:
            later, first = steady(seen, row), seen[seen.step == 0]
            share = later.age_0 / later.tokens
            counts = later[ages].mul(later.rows, axis=0).sum().to_numpy()
            old = [age for age in range(1, len(ages)) if counts[age]]
            row |= {"fresh_min": share.min(), "fresh_max": share.max()}
            row["fresh_mean"] = weighted_mean(share, later.rows)
            if old:
                row["stale_age"] = float(np.average(old, weights=counts[old]))
            row["oldest"] = max(old, default=0)
            row["never_first"] = weighted_mean(first.never / first.tokens, first.rows)
            row["never_later"] = weighted_mean(later.never / later.tokens, later.rows)
        found.append(row)
    return by_setting(found, FRESHNESS, names or more(record.probes))


def final_errors(record: Record, run: Mapping[Any, Any]) -> pd.Series:
    """How far the final latents of a run are from serial's, relative, one a picture."""
    steps = of_setting(record.steps, run)
    return pd.Series(dtype=float) if steps.empty else steps[steps.step == steps.step.max()].relative_error


def errors(record: Record, names: Sequence[str] = ()) -> pd.DataFrame:
    """One row a run on the model: relative errors of attention, K and V (where watched), and of the final latents.

    `names`: of `MORE`.
    """
    found = []
    for row in record.runs.to_dict("records"):
        seen, last = of_setting(record.error, row), final_errors(record, row)
        if not seen.empty:
            seen = steady(seen, row)
            by_step = means_by_step(seen, "attention_error")
            row |= {"worst_step_error": by_step.max(), "worst_step": by_step.idxmax()}
            row |= {
                key: weighted_mean(seen[key], seen.rows) for key in ("attention_error", "k_error", "v_error")
            }
        if not last.empty:
            row |= {"latent_error": last.mean(), "latent_sd": last.std(), "pictures": len(last)}
        found.append(row)
    shown = [*ERRORS[:-1], column("pictures"), "status"]
    return by_setting(found, shown, names or more(record.runs))


def by_setting(rows: list[dict[Any, Any]], shown: Shown, names: Sequence[str]) -> pd.DataFrame:
    """A table of settings in the order of methods, with the columns `names` behind those of `SETTING`."""
    columns = [one if isinstance(one, str) else one.name for one in headed(shown, names)]
    whole = [*SETTING[1:], *({"oldest", "worst_step", "pictures"} & {*columns})]
    return in_order(
        pd.DataFrame(rows).reindex(columns=[*columns, "reason"]).astype(dict.fromkeys(whole, "Int64"))
    )


def redundancy(record: Record) -> pd.DataFrame:
    """One row a quantity: the mean change of the first steps, of the rest, of all, and the largest and least step."""
    found, ahead = [], first_changes(record)
    for quantity in QUANTITIES if len(record.redundancy) else ():
        by_step = means_by_step(record.redundancy[record.redundancy.quantity == quantity], "change")
        first, rest = by_step.iloc[:ahead].mean(), by_step.iloc[ahead:].mean()
        least = (by_step.min(), by_step.idxmin())
        found.append([quantity, by_step.iloc[0], first, rest, *least, by_step.iloc[-1]])
    return pd.DataFrame(found, columns=[one.name for one in REDUNDANCY if isinstance(one, Column)])


def first_changes(record: Record) -> int:
    """How many changes count as the first."""
    return max(1, round(AHEAD * (record.source["steps"] - 1)))
