"""Two folders of runs, or two records of one kind, joined on what was asked for.

A ratio of seconds is B over A, and stands only where both are of one machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import frame, sweep, tables
from analysis.record import load_record, load_run
from analysis.study import RECORD, load_study

NOTHING = "–"


@dataclass(frozen=True)
class Kind:
    """Records that can be compared: what a row is joined on (column -> heading), and what is shown of it.

    `part` is the list of rows in `file`; without it `file` is the name of a study. `seconds` is the column whose ratio
    is shown; `measured` says that these seconds are of the machine the record was made on.
    """

    file: str
    part: str
    keys: dict[str, str]
    values: tables.Columns
    seconds: str | None = None
    measured: bool = False


def _digits(digits: int) -> Callable[[float], str]:
    return lambda value: f"{value:.{digits}f}"


SETTING = {"method": "method", "devices": "N", "patches": "M", "warmup": "W", "split": "split"}
RUNS = Kind(
    "run.json",
    "",
    SETTING
    | {"product": "degrees", "model": "model", "px": "px", "steps": "S", "guidance_scale": "guidance"}
    | {"scheduler": "scheduler", "seed": "seed", "dtype": "dtype"},
    {
        "latency_s": ("latency\ns", _digits(2)),
        "param_bytes": ("params\nMiB", tables.mib),
        "kv_bytes": ("KV\nMiB", tables.mib),
        "peak_bytes": ("peak\nMiB", tables.mib),
        "sent_bytes_per_step": ("sent\nMiB/step", tables.mib),
        "relative_error": ("error to\nserial", lambda value: f"{value:.1e}"),
        "status": ("status", str),
    },
    "latency_s",
    measured=True,
)
PREDICTED: tables.Columns = {"peak_bytes": ("peak\nMiB", tables.mib), "status": ("status", str)}
RECORDS = [
    Kind(
        "scaling",
        "",
        {"cluster": "cluster", "resolution": "px", **SETTING},
        {"predicted_latency_s": ("predicted\ns", _digits(3)), **PREDICTED},
        "predicted_latency_s",
    ),
    Kind(
        "predictions.json",
        "predictions",
        {"row_id": "published row", "cluster": "cluster", "method": "method", "devices": "N"},
        {"predicted_s": ("predicted\ns", _digits(3)), **PREDICTED},
        "predicted_s",
    ),
    Kind(
        "quality.json",
        "metrics",
        {"key": "setting", "metric": "metric", "against": "against", "network": "network"},
        {"value": ("value", "{:.4g}".format), "n": ("pictures", "{:.0f}".format)},
    ),
]


@dataclass(frozen=True)
class Comparison:
    """Rows of A and B joined (`*_a`, `*_b`, `ratio`), and what has to be said of them."""

    kind: Kind
    rows: pd.DataFrame
    warnings: list[str]


def joined(a: Path, b: Path) -> Comparison:
    """The rows of both folders, joined. Raises ValueError when they have nothing to compare."""
    kind = kind_of(a, b)
    sides = [_runs(folder) if kind is RUNS else _record(folder, kind) for folder in (a, b)]
    keys = [*kind.keys, "again"]
    warnings = []
    for name, side in zip("AB", sides, strict=True):
        for column in kind.keys:
            side[column] = side[column].map(_word)
        side["again"] = side.groupby(list(kind.keys)).cumcount()
        side["place"] = range(len(side))
        if side.again.any():
            warnings.append(f"{name} has several rows of one setting; they are paired in their order")
    rows = sides[0].merge(sides[1], how="outer", on=keys, suffixes=("_a", "_b"))
    rows = rows.sort_values(["place_a", "place_b"], na_position="last", ignore_index=True)
    if kind.seconds:
        ratio = rows[f"{kind.seconds}_b"].astype(float) / rows[f"{kind.seconds}_a"].astype(float)
        rows["ratio"] = ratio.where(rows.machine_a == rows.machine_b)
    machines, commits = ([_several(side[column]) for side in sides] for column in ("machine", "commit"))
    if machines[0] != machines[1]:
        words = f"hardware differs: A {machines[0]}; B {machines[1]}"
        warnings.append(f"{words}: a ratio of seconds would compare machines, and is left out")
    if commits[0] != commits[1]:
        warnings.append(f"commits differ: A {commits[0]}; B {commits[1]}")
    return Comparison(kind, rows, warnings)


def kind_of(a: Path, b: Path) -> Kind:
    """What both folders hold. Raises ValueError when that is nothing, or not the same."""
    for folder in (a, b):
        if not folder.is_dir():
            raise ValueError(f"compare: {folder} is not a folder")
    held = [
        [kind for kind in RECORDS if holds(folder, kind)] or ([RUNS] if any(frame.run_dirs(folder)) else [])
        for folder in (a, b)
    ]
    both = [kind for kind in held[0] if kind in held[1]]
    if not both:
        files = [" and ".join(kind.file for kind in kinds) or "nothing to compare" for kinds in held]
        allowed = ", ".join(kind.file for kind in [RUNS, *RECORDS])
        raise ValueError(f"compare: {a} holds {files[0]}, {b} holds {files[1]}; allowed: two of {allowed}")
    return both[0]


def holds(folder: Path, kind: Kind) -> bool:
    """Whether a folder has a record of a kind."""
    if kind.part:
        return (folder / kind.file).exists()
    return (folder / RECORD).exists() and load_record(folder / RECORD)["study"] == kind.file


def _runs(folder: Path) -> pd.DataFrame:
    runs = frame.runs(folder)[[*RUNS.keys, "path"]]
    counted = sweep.methods(folder)[["path", *RUNS.values]]
    side = counted.merge(runs, on="path", how="left")
    records = [load_run(Path(path)) for path in side.path]
    side["machine"] = [_machine(record) for record in records]
    side["commit"] = [_commit(record) for record in records]
    return side[[*RUNS.keys, *RUNS.values, "machine", "commit"]]


def _record(folder: Path, kind: Kind) -> pd.DataFrame:
    if kind.part:
        record = load_record(folder / kind.file)
        rows = pd.DataFrame(record[kind.part])
    else:
        record, rows = vars(load_study(folder)).values()
    side = rows.reindex(columns=[*kind.keys, *kind.values])
    return side.assign(machine=_machine(record) if kind.measured else "", commit=_commit(record))


def _machine(record: dict[str, Any]) -> str:
    """What a run's seconds are of: the profile they are predicted for, or the machine they were taken on."""
    if record.get("predicted"):
        return f"predicted for {record.get('cluster')}"
    hardware = record.get("hardware") or {}
    parts = [hardware.get("gpu"), hardware.get("cpu"), f"{hardware.get('cores')} cores"]
    where = ", ".join(part for part in parts if part)
    return f"simulated on {where}" if record.get("world") == "sim" else where


def _commit(record: dict[str, Any]) -> str:
    commit, dirty, _ = str(record.get("git_commit") or "unknown").partition("-dirty")
    return commit[:10] + dirty


def _several(words: pd.Series) -> str:
    return " or ".join(sorted(set(words)))


def _word(value: Any) -> str:
    """A key as text, so that 20 and 20.0, None and NaN are the same."""
    if isinstance(value, (int, float)) and not pd.isna(value):
        return f"{value:g}"
    return NOTHING if value is None or value is pd.NA or isinstance(value, float) else str(value)
