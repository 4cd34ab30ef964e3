"""The record of quality as frames: settings with what was measured on their pictures, and the floors beside them.

`record["rows"]` has a row for each setting and metric, with an interval, n, and the value of each picture where the
metric is one of pairs. A floor's rows have a name (`what`). Rows of predicted latencies, which older records have, are
of no setting and are not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.presentation.style import label
from analysis.records.study import load_study

TASK = ["steps", "guidance_scale", "scheduler", "px", "dtype"]
"""What two settings must share to be compared: the same question asked of serial."""
SETTING = ["method", "devices", "product", "patches", "warmup", *TASK]
SYMBOLS = {"devices": "N", "patches": "M", "warmup": "W"}
PARTS = ["low", "high", "n", "n_reference"]
INTERVAL = "low to high, as recorded"


@dataclass(frozen=True)
class Metric:
    """How a metric is called and written. `own` is (network, the name that it has on that network alone)."""

    name: str
    write: Callable[[float], str]
    better: str
    paired: bool = False
    falls: bool = False  # with n: numbers at other n are not comparable
    own: tuple[str, str] | None = None
    unit: str = ""


def digits(form: str) -> Callable[[float], str]:
    """A number in a format; an infinite one is ∞."""

    def write(value: float) -> str:
        return "∞" if math.isinf(value) else f"{value:{form}}".rstrip(".")

    return write


METRICS = {
    "frechet": Metric("Fréchet distance", digits("#.4g"), "↓", falls=True, own=("inception", "FID")),
    "frechet_excess": Metric("excess Fréchet distance", digits("+.3g"), "↓", own=("inception", "excess FID")),
    "kid": Metric("kernel distance", digits("#.3g"), "↓", own=("inception", "KID")),
    "inception_score": Metric("IS-like score", digits(".2f"), "↑", own=("inception", "inception score")),
    "text_score": Metric("text score", digits(".3f"), "↑", own=("clip", "CLIP score")),
    "nearest_top1": Metric("nearest real picture is the prompt's", digits(".3f"), "↑"),
    "latent_error": Metric("latent error", digits("#.3g"), "↓", paired=True),
    "psnr_db": Metric("mean PSNR", digits(".1f"), "↑", paired=True, unit="dB"),
    "ssim": Metric("SSIM", digits(".4f"), "↑", paired=True),
    "feature_distance": Metric("feature distance", digits("#.3g"), "↓", paired=True),
}
REFERENCES = ["real", "serial"]


@dataclass(frozen=True)
class Measure:
    """A column of numbers: which metric, to what (`real`, `serial`, `prompt` or nothing), by which network."""

    metric: str
    against: str | None
    network: str | None

    @property
    def key(self) -> str:
        """Its column in a table."""
        parts = [self.metric, self.against, self.network]
        return "_".join(re.sub(r"\W+", "_", part) for part in parts if part)

    @property
    def looks(self) -> Metric:
        return METRICS.get(self.metric, Metric(self.metric, digits("#.4g"), ""))

    @property
    def name(self) -> str:
        """With the network, which alone decides whether a distance may be called FID."""
        looks, network = self.looks, self.network
        known = looks.own is not None and network is not None and network.split(":")[0] == looks.own[0]
        name = looks.own[1] if known and looks.own else looks.name
        if looks.paired or looks.better == "↓":
            name += f" to {self.against}"
        return name + (f", {looks.unit}" if looks.unit else "") + (f" ({network})" if network else "")

    @property
    def of_equal(self) -> bool:
        """Whether it is 0 when the pictures are serial's own."""
        return self.against == "serial" and self.looks.better == "↓"

    @property
    def from_serial(self) -> bool:
        """Whether it says how far from serial's something is, so that of serial's own pictures it says nothing."""
        return self.against == "serial" or self.metric == "frechet_excess"

    @property
    def place(self) -> tuple[Any, ...]:
        """As `METRICS` has them, then real before serial."""
        metrics = list(METRICS)
        at = metrics.index(self.metric) if self.metric in METRICS else len(metrics)
        to = REFERENCES.index(self.against) if self.against in REFERENCES else len(REFERENCES)
        return at, self.metric, to, self.network or ""


def load(folder: str | Path) -> dict[str, Any]:
    """The record, its table as `rows`. Raises OSError, and ValueError when it is broken."""
    study = load_study(Path(folder))
    return study.facts | {"rows": readable(study.rows)}


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """The table with `px`, with settings distinguished by name (`key`), and with the `measure` of each row."""
    same = rows.height == rows.width
    px = rows.height.astype(str).where(same, rows.height.astype(str) + " x " + rows.width.astype(str))
    of = [
        None if pd.isna(metric) else Measure(metric, *(None if pd.isna(part) else part for part in rest))
        for metric, *rest in zip(rows.metric, rows.against, rows.network, strict=True)
    ]
    named = rows.drop(columns="key").rename(columns={"setting": "key"})
    return named.assign(px=px, measure=pd.Series(of, index=rows.index, dtype=object))


def measured(record: dict[str, Any]) -> pd.DataFrame:
    """The rows of settings."""
    rows = record["rows"]
    return rows[rows.what.isna() & rows.key.notna()]


def known(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a number."""
    return rows[rows.metric.notna() & rows.value.notna()]


def measures(record: dict[str, Any]) -> list[Measure]:
    """Every measure that has a value anywhere, in one order."""
    rows = record["rows"][["metric", "value", "measure"]]
    return sorted(set(known(rows).measure), key=lambda one: one.place)


def settings(record: dict[str, Any]) -> pd.DataFrame:
    """One row a setting with its measures: `KEY`, `KEY_low`, `KEY_high`, `KEY_n` and `KEY_n_reference` of each.

    A setting that was not sampled itself has what was measured on the pictures it shares, where that was not measured
    on its own number of them. `exact` says that those are serial's own.
    """
    rows = measured(record)
    table = rows.drop_duplicates("key").reset_index(drop=True)
    of_metric = [
        "metric",
        "against",
        "network",
        "preprocessing",
        "value",
        *PARTS,
        "note",
        "values",
        "measure",
    ]
    table = table.drop(columns=[*of_metric, "what"]).rename(columns={"studies": "study"})
    method_of = dict(zip(table.key, table.method, strict=True))
    table["exact"] = (table.sampled_as.map(method_of) == "serial") & (table.status == "ok")
    own = with_measures(table, rows, ["key"], measures(record))
    shared = own.set_index("key").reindex(own.sampled_as).set_axis(own.index)
    for one in measures(record):
        kept = own[one.key].notna() | (own.status != "ok")
        for name in (one.key, *(f"{one.key}_{part}" for part in PARTS)):
            own[name] = own[name].where(kept, shared[name])
    return own


def floors(record: dict[str, Any]) -> pd.DataFrame:
    """One row for what is compared, its size and n, with the same columns of measures as `settings`.

    `remark` is what the record notes of it. Without those that are at another n than any setting (`unlike`).
    """
    rows = record["rows"]
    rows = rows[rows.what.notna()].drop(index=unlike(record).index)
    by = ["what", "px", "n"]
    table = rows.drop_duplicates(by)[[*by, "resolution"]].reset_index(drop=True)
    notes = {name: "; ".join(dict.fromkeys(part.note.dropna())) or None for name, part in rows.groupby(by)}
    remarks = [notes[name] for name in table[by].itertuples(index=False, name=None)]
    table = with_measures(table, rows, by, measures(record)).drop(columns="n")
    return table.assign(remark=pd.Series(remarks, dtype=object))


def with_measures(
    table: pd.DataFrame, rows: pd.DataFrame, by: list[str], shown: list[Measure]
) -> pd.DataFrame:
    """The table with the values, intervals and n that its rows have of each measure."""
    rows = rows[[*{*by, "measure", "value", *PARTS}]]
    found, groups = table[by], rows.groupby("measure", sort=False).indices
    for one in shown:
        part = rows.iloc[groups.get(one, [])].drop_duplicates(by).set_index(by, drop=False)
        names = {"value": one.key, **{part: f"{one.key}_{part}" for part in PARTS}}
        found = found.join(part[[*names]].rename(columns=names), on=by)
    return table.join(found.drop(columns=by))


def unlike(record: dict[str, Any]) -> pd.DataFrame:
    """The floors that cannot stand beside any setting: their value depends on n, and theirs is another."""
    rows, by = record["rows"], ["measure", "n", "n_reference"]
    beside = set(measured(record)[by].dropna().itertuples(index=False, name=None))
    below = rows[rows.what.notna() & rows.metric.notna()]
    alone = [
        one.looks.falls and (one, n, against) not in beside
        for one, n, against in below[by].itertuples(index=False, name=None)
    ]
    return below[pd.Series(alone, index=below.index, dtype=bool)]


def unlike_words(record: dict[str, Any]) -> str:
    """Which floors are not beside the settings, in a sentence each; empty when all are."""
    return " ".join(
        f"No floor of {row['measure'].name}: of {row['what']} it is known at n = {row['n']} against "
        f"{row['n_reference']} only, and falls as n grows."
        for row in unlike(record).to_dict("records")
    )


def of_study(table: pd.DataFrame, *studies: str) -> pd.DataFrame:
    """The settings that belong to one of the sweeps."""
    return table[[any(study in one for study in studies) for one in table.study]]


def usual_task(table: pd.DataFrame) -> pd.DataFrame:
    """The settings with the task that most of them have: the one that the sweeps turn around."""
    tasks = list(table[TASK].itertuples(index=False, name=None))
    most = max(dict.fromkeys(tasks), key=tasks.count, default=None)
    return table[[task == most for task in tasks]]


def same_task(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Of a table, the settings whose task is that of some row."""
    tasks = set(rows[TASK].itertuples(index=False, name=None))
    return table[[task in tasks for task in table[TASK].itertuples(index=False, name=None)]]


def choices(row: dict[Any, Any], form: str = "{}={}", between: str = " ") -> str:
    """N, M and W of a setting, as far as it has them, and the degrees beside the method's own."""
    words = [form.format(symbol, row[key]) for key, symbol in SYMBOLS.items() if not pd.isna(row[key])]
    product = row.get("product")
    return between.join([*words, *([product] if isinstance(product, str) else [])])


def setting_name(row: dict[Any, Any]) -> str:
    """A method with its N, M and W; serial, which has no choice, alone."""
    words = "" if row["method"] == "serial" else choices(row)
    return f"{label(row['method'])} {words}".strip()


def task_words(rows: pd.DataFrame) -> str:
    """What all settings share: size, dtype, S, guidance and scheduler, as far as they do."""
    forms = {
        "px": "{} px",
        "dtype": "{}",
        "steps": "S = {}",
        "guidance_scale": "guidance {:g}",
        "scheduler": "scheduler {}",
    }
    shared = [key for key in forms if rows[key].nunique(dropna=False) == 1]
    return ", ".join(forms[key].format(rows[key].iloc[0]) for key in shared)


def model_words(record: dict[str, Any]) -> str:
    """Which model: name, size and the beginning of its weights' hash."""
    model = record["model"]
    size, weights = f"{model['parameters'] / 1e6:.3g} M parameters", model["weights_sha256"]
    return f"{model['name']} ({size}, {f'weights {weights[:8]}' if weights else 'random weights'})"
