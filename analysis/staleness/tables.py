"""Tables of how stale the K, V of each method are and what that does, over one record of `experiment=staleness`.

Shares and errors are averaged over token rows: each job counts by the rows that it computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.columns import Column, Shown, digits, shares
from analysis.record import load_record
from analysis.style import in_order, label

SETTING = ["method", "devices", "patches", "warmup"]
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
{pictures} pictures and the guidance branches. The first {ahead} changes are told apart from the rest.
"""


@dataclass(frozen=True)
class Record:
    """`facts` is staleness.json; a table a kind of measurement."""

    facts: dict[str, Any]
    freshness: pd.DataFrame
    redundancy: pd.DataFrame
    error: pd.DataFrame
    steps: pd.DataFrame
    map: pd.DataFrame

    @property
    def source(self) -> dict[str, Any]:
        """What captions and notes say of the runs."""
        config = self.facts["config"]
        return {
            "model": self.facts["model"],
            "steps": config["steps"],
            "pictures": len(self.facts["prompts"]),
            "guidance": self.facts["guidance_scale"],
        }

    def name(self, setting: dict[str, Any] | pd.Series) -> str:
        """A setting as figures call it: `PipeFusion, M = 4, W = 1`; N where it makes a difference."""
        words = [label(setting["method"])]
        n, m, w = (setting[key] for key in SETTING[1:])
        words += [f"N = {n}"] if pd.isna(m) and n > 1 else []
        words += [f"M = {m}"] if not pd.isna(m) else []
        return ", ".join(words + ([f"W = {w}"] if not pd.isna(w) else []))


def load(folder: str | Path) -> Record:
    """The record of a run directory; `rows` is how many token rows a row of a table is about. Raises OSError."""
    folder = Path(folder)
    facts: dict[str, Any] = load_record(folder / "staleness.json")
    whole = dict.fromkeys([*SETTING[1:], "layer"], "Int64")

    def table(name: str) -> pd.DataFrame:
        try:
            found = pd.read_csv(folder / f"{name}.csv")
        except pd.errors.EmptyDataError:  # nothing could be measured
            return pd.DataFrame(columns=SETTING)
        if "row_stop" in found:
            found["rows"] = found.row_stop - found.row_start
        return found.astype({key: kind for key, kind in whole.items() if key in found})

    names = ("freshness", "redundancy", "error", "steps", "map")
    return Record(facts, **{name: table(name) for name in names})


def mean_of(values: pd.Series, rows: pd.Series) -> float:
    """A mean in which each job counts by its token rows; NaN of nothing."""
    there = values.notna()
    return float(np.average(values[there], weights=rows[there])) if there.any() else float("nan")


def steady(table: pd.DataFrame, setting: dict[str, Any]) -> pd.DataFrame:
    """The rows of steps after a setting's warm-up; with W = 0 not the first step, whose buffers are empty."""
    warmup = setting["warmup"]
    return table[table.step >= (0 if pd.isna(warmup) else max(warmup, 1))]


def means_by_step(table: pd.DataFrame, value: str) -> pd.Series:
    """`mean_of` a column, by step."""
    found = {int(str(step)): mean_of(part[value], part.rows) for step, part in table.groupby("step")}
    return pd.Series(found, dtype=float)


def of_setting(table: pd.DataFrame, setting: dict[str, Any]) -> pd.DataFrame:
    """The rows of one setting."""
    keep = pd.Series(True, index=table.index)
    for key in SETTING:
        keep &= table[key].isna() if pd.isna(setting[key]) else table[key].eq(setting[key]).fillna(False)
    return table[keep.astype(bool)]


def freshness(record: Record) -> pd.DataFrame:
    """One row a probed setting: shares of what is attended to that are fresh, and the ages of the rest in steps.

    `fresh_mean`, `fresh_min`, `fresh_max`: shares over the jobs; `stale_age`: the mean age of what is not fresh;
    `oldest`: the largest age; `never_first`: the share never written in step 0.
    """
    found = []
    ages = [column for column in record.freshness if str(column).startswith("age_")]
    for probed in record.facts["probes"]:
        row: dict[str, Any] = dict(probed)
        if probed["status"] == "ok":
            seen = of_setting(record.freshness, probed)
            later, first = steady(seen, probed), seen[seen.step == 0]
            share = later.age_0 / later.tokens
            counts = later[ages].mul(later.rows, axis=0).sum().to_numpy()
            old = [age for age in range(1, len(ages)) if counts[age]]
            row |= {
                "fresh_min": share.min(),
                "fresh_max": share.max(),
                "fresh_mean": mean_of(share, later.rows),
            }
            if old:
                row["stale_age"] = float(np.average(old, weights=counts[old]))
            row["oldest"] = max(old, default=0)
            row["never_first"] = mean_of(first.never / first.tokens, first.rows)
            row["never_later"] = mean_of(later.never / later.tokens, later.rows)
        found.append(row)
    columns = ["fresh_mean", "fresh_min", "fresh_max", "stale_age", "oldest", "never_first", "never_later"]
    whole = dict.fromkeys([*SETTING[1:], "oldest"], "Int64")
    return in_order(
        pd.DataFrame(found).reindex(columns=[*SETTING, *columns, "status", "reason"]).astype(whole)
    )


def errors(record: Record) -> pd.DataFrame:
    """One row a run on the model: relative errors of attention, K and V (where watched), and of the final latents."""
    found = []
    for run in record.facts["runs"]:
        row: dict[str, Any] = dict(run)
        seen = of_setting(record.error, run)
        if not seen.empty:
            seen = steady(seen, run)
            by_step = means_by_step(seen, "attention_error")
            row["attention_error"] = mean_of(seen.attention_error, seen.rows)
            row |= {"worst_step_error": by_step.max(), "worst_step": by_step.idxmax()}
            row |= {key: mean_of(seen[key], seen.rows) for key in ("k_error", "v_error")}
        steps = of_setting(record.steps, run)
        if not steps.empty:
            last = steps[steps.step == steps.step.max()].relative_error
            row |= {"latent_error": last.mean(), "latent_sd": last.std(), "pictures": len(last)}
        found.append(row)
    columns = ["attention_error", "worst_step_error", "worst_step", "k_error", "v_error", "latent_error"]
    columns += ["latent_sd", "pictures", "status", "reason"]
    whole = dict.fromkeys([*SETTING[1:], "worst_step", "pictures"], "Int64")
    return in_order(pd.DataFrame(found).reindex(columns=[*SETTING, *columns]).astype(whole))


def redundancy(record: Record) -> pd.DataFrame:
    """One row a quantity: the mean change of the first steps, of the rest, of all, and the largest and least step."""
    found, ahead = [], ahead_of(record)
    for quantity in QUANTITIES:
        by_step = means_by_step(record.redundancy[record.redundancy.quantity == quantity], "change")
        row: dict[str, Any] = {"quantity": quantity, "step_1": by_step.iloc[0]}
        row |= {"first": by_step.iloc[:ahead].mean(), "rest": by_step.iloc[ahead:].mean()}
        row |= {"least": by_step.min(), "least_step": by_step.idxmin(), "last": by_step.iloc[-1]}
        found.append(row)
    return pd.DataFrame(found)


def ahead_of(record: Record) -> int:
    """How many changes count as the first."""
    return max(1, round(AHEAD * (record.facts["config"]["steps"] - 1)))
