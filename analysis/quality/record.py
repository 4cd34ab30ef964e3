"""The record of quality as frames: settings, what was measured on their pictures, and the floors beside them.

A record is JSON: `settings` (method, N, M, W, S, guidance and so on, with `study`, the sweeps a setting belongs to,
and `sampled_as`, the setting whose pictures these are), `metrics` (one row a setting, metric, reference and network,
with an interval and n), `floors` (the same metrics between pictures that ought not to differ) and `latency`
(predicted seconds). Beside it lie `paired.parquet` (a row a setting and picture) and `images/KEY/`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.record import load_record
from analysis.style import label

TASK = ["steps", "guidance_scale", "scheduler", "resolution", "dtype"]
"""What two settings must share to be compared: the same question asked of serial."""
SETTING = ["method", "devices", "patches", "warmup", *TASK]
SYMBOLS = {"devices": "N", "patches": "M", "warmup": "W"}
WHOLE = ["devices", "patches", "warmup", "steps", "resolution", "pictures", "equal_n"]
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


def measure_of(row: dict[str, Any]) -> Measure:
    """Of a row of `metrics` or `floors`."""
    return Measure(row["metric"], row["against"], row["network"])


def number(row: dict[str, Any], part: str = "value") -> float:
    """A number of a row, NaN where there is none. JSON has no infinity, which a PSNR of equal pictures is."""
    if row.get(part) is not None:
        return float(row[part])
    equal = row["metric"] == "psnr_db" and str(row.get("note")).startswith("equal")
    return math.inf if equal and part == "value" else math.nan


def load(folder: str | Path) -> dict[str, Any]:
    """The record. Raises OSError."""
    record: dict[str, Any] = load_record(Path(folder) / "quality.json")
    return record


def measures(record: dict[str, Any]) -> list[Measure]:
    """Every measure that has a value anywhere, in one order: as `METRICS`, then real before serial."""
    rows = [*record["metrics"], *record["floors"]]
    found = {measure_of(row) for row in rows if not math.isnan(number(row))}
    metrics, references = list(METRICS), ["real", "serial"]

    def place(measure: Measure) -> tuple[Any, ...]:
        at = metrics.index(measure.metric) if measure.metric in metrics else len(metrics)
        to = references.index(measure.against) if measure.against in references else len(references)
        return at, measure.metric, to, measure.network or ""

    return sorted(found, key=place)


def settings(record: dict[str, Any]) -> pd.DataFrame:
    """One row a setting with its measures: `KEY`, `KEY_low`, `KEY_high`, `KEY_n` and `KEY_n_reference` of each.

    A setting that was not sampled itself has what was measured on the pictures it shares, where the record does not
    repeat that under its own key. `exact` says that those are serial's own.
    """
    table = pd.DataFrame(record["settings"])
    table = table.astype(dict.fromkeys(WHOLE, "Int64") | {"equal_error": float, "guidance_scale": float})
    method_of = dict(zip(table.key, table.method, strict=True))
    table["exact"] = (table.sampled_as.map(method_of) == "serial") & (table.status == "ok")
    found = {(row["key"], measure_of(row)): row for row in record["metrics"]}
    for measure in measures(record):
        rows = [
            found.get((key, measure)) or (found.get((shared, measure)) if status == "ok" else None)
            for key, shared, status in zip(table.key, table.sampled_as, table.status, strict=True)
        ]
        table = table.join(_columns(measure, rows, table.index))
    return table


def floors(record: dict[str, Any]) -> pd.DataFrame:
    """One row for what is compared, its resolution and n, with the same columns of measures as `settings`.

    `remark` is what the record notes of it. Without those that are at another n than any setting (`unlike`).
    """
    out = unlike(record)
    rows = [row for row in record["floors"] if row not in out]
    names = list(dict.fromkeys((row["what"], row["resolution"], row["n"]) for row in rows))
    table = pd.DataFrame(names, columns=["what", "resolution", "n"]).astype({"resolution": "Int64"})
    found = {(row["what"], row["resolution"], row["n"], measure_of(row)): row for row in rows}
    for measure in measures(record):
        table = table.join(_columns(measure, [found.get((*name, measure)) for name in names], table.index))
    said = {
        name: [one for one in rows if (one["what"], one["resolution"], one["n"]) == name] for name in names
    }
    notes = [dict.fromkeys(one["note"] for one in said[name] if one.get("note")) for name in names]
    return table.drop(columns="n").assign(remark=pd.Series(["; ".join(each) or None for each in notes]))


def unlike(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The floors that cannot stand beside any setting: their value depends on n, and theirs is another."""
    known = {(measure_of(row), row["n"], row["n_reference"]) for row in record["metrics"]}
    return [
        row
        for row in record["floors"]
        if measure_of(row).looks.falls and (measure_of(row), row["n"], row["n_reference"]) not in known
    ]


def unlike_words(record: dict[str, Any]) -> str:
    """Which floors are not beside the settings, in a sentence each; empty when all are."""
    return " ".join(
        f"No floor of {measure_of(row).name}: of {row['what']} it is known at n = {row['n']} against "
        f"{row['n_reference']} only, and falls as n grows."
        for row in unlike(record)
    )


def _columns(measure: Measure, rows: list[dict[str, Any] | None], index: pd.Index) -> pd.DataFrame:
    cells = {measure.key: [number(row) if row else math.nan for row in rows]}
    for part in PARTS:
        cells[f"{measure.key}_{part}"] = [number(row, part) if row else math.nan for row in rows]
    counts = [f"{measure.key}_{part}" for part in PARTS if part.startswith("n")]
    return pd.DataFrame(cells, index=index).astype(dict.fromkeys(counts, "Int64"))


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
    """N, M and W of a setting, as far as it has them."""
    return between.join(
        form.format(symbol, row[key]) for key, symbol in SYMBOLS.items() if not pd.isna(row[key])
    )


def setting_name(row: dict[Any, Any]) -> str:
    """A method with its N, M and W; serial, which has no choice, alone."""
    words = "" if row["method"] == "serial" else choices(row)
    return f"{label(row['method'])} {words}".strip()


def task_words(rows: pd.DataFrame) -> str:
    """What all settings share: resolution, dtype, S, guidance and scheduler, as far as they do."""
    forms = {
        "resolution": "{} px",
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
