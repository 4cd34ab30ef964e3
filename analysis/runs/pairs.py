"""Two folders of runs, or two records of one kind, joined on what was asked for.

A ratio of seconds is B over A, and stands only where both are of one machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.presentation.columns import Column, column, digits, typed
from analysis.records.record import RECORD, load_record, load_run
from analysis.records.study import load_study
from analysis.runs import frame, sweep


@dataclass(frozen=True)
class Kind:
    """Records that can be compared: the columns that a row is joined on, and those that are shown of it.

    `name` is that of a study, or the file of a run. `seconds` is the column whose ratio is shown.
    """

    name: str
    keys: list[str]
    values: list[Column]
    seconds: str | None = None

    @property
    def shown(self) -> list[str]:
        """The names of the columns that are shown."""
        return [one.name for one in self.values]


SETTING = ["method", "devices", "patches", "warmup", "split"]
HELD = [column("param_bytes"), column("kv_bytes"), column("peak_bytes"), column("sent_bytes_per_step")]
RUNS = Kind(
    "run.json",
    [*SETTING, "product", "model", "px", "steps", "guidance_scale", "scheduler", "seed", "dtype"],
    [column("latency_s"), *HELD, column("relative_error", heading="error to\nserial"), column("status")],
    "latency_s",
)
PREDICTED = column("predicted_latency_s", heading="predicted", format=digits(3))
RECORDS = [
    Kind(
        "scaling",
        ["cluster", "resolution", *SETTING],
        [PREDICTED, column("peak_bytes"), column("status")],
        PREDICTED.name,
    ),
    Kind(
        "predict",
        ["row_id", "cluster", "method", "devices"],
        [replace(PREDICTED, name="predicted_s"), column("peak_bytes"), column("status")],
        "predicted_s",
    ),
    Kind(
        "quality",
        ["setting", "what", "metric", "against", "network"],
        [column("value", format="{:.4g}".format), column("n", heading="pictures")],
    ),
]


@dataclass(frozen=True)
class Comparison:
    """Rows of A and B joined (`*_a`, `*_b`, `ratio`), and remarks on them."""

    kind: Kind
    rows: pd.DataFrame
    warnings: list[str]


def joined(a: Path, b: Path) -> Comparison:
    """The rows of both folders, joined. Raises ValueError when they have nothing to compare."""
    kind = common_kind(a, b)
    sides = [_runs(folder) if kind is RUNS else _record(folder, kind) for folder in (a, b)]
    keys = [*kind.keys, "again"]
    warnings = []
    for name, side in zip("AB", sides, strict=True):
        side[kind.keys] = typed(side[kind.keys])
        side["again"] = side.groupby(kind.keys, dropna=False).cumcount()
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


def common_kind(a: Path, b: Path) -> Kind:
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
        files = [" and ".join(kind.name for kind in kinds) or "nothing to compare" for kinds in held]
        allowed = ", ".join(kind.name for kind in [RUNS, *RECORDS])
        raise ValueError(f"compare: {a} holds {files[0]}, {b} holds {files[1]}; allowed: two of {allowed}")
    return both[0]


def holds(folder: Path, kind: Kind) -> bool:
    """Whether a folder has the record of a study."""
    return (folder / RECORD).exists() and load_record(folder / RECORD).get("study") == kind.name


def _runs(folder: Path) -> pd.DataFrame:
    runs = frame.runs(folder)[[*RUNS.keys, "path"]]
    counted = sweep.methods(folder)[["path", *RUNS.shown]]
    side = counted.merge(runs, on="path", how="left")
    records = [load_run(Path(path)) for path in side.path]
    side["machine"] = [_machine(record) for record in records]
    side["commit"] = [_commit(record) for record in records]
    return side[[*RUNS.keys, *RUNS.shown, "machine", "commit"]]


def _record(folder: Path, kind: Kind) -> pd.DataFrame:
    """The rows of a study; none of their seconds are of the machine that the record was made on."""
    record = load_study(folder)
    side = record.rows.reindex(columns=[*kind.keys, *kind.shown])
    return side.assign(machine="", commit=_commit(record.facts))


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
