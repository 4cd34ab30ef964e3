"""`measure=predict`: every published row that can be, predicted by its run on the named hardware."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.evidence import predictions as report
from analysis.evidence.prediction_tables import verdicts
from analysis.records.study import Record
from experiments.config import RunConfig
from experiments.errors import ConfigError
from experiments.facts import borrowed, calibration_rows
from experiments.grid import place, problem
from experiments.journal import Row
from experiments.models.model import Model
from experiments.models.parts import part_bytes
from experiments.published import FOLDER, T5_HALF, T5_WIDE, Target, target_run, targets, unpredicted
from experiments.runs.plan import Planned, plan
from experiments.session import Session
from experiments.studies.decode_cost import decoding_seconds
from experiments.study import Cell, Study
from pipefusion.core.domain import Threads
from pipefusion.core.parallel import Parallel


@dataclass
class PredictConfig:
    """`only`: rows whose id begins so. `workers` null: a process for each core."""

    name: str = "predict"
    only: str = ""
    workers: Threads | None = None


def runs(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """A run for each published row: the first of its candidates."""
    for target in targets():
        if target.row_id.startswith(cfg.measure.only):
            yield replace(target_run(target, cfg), measure=target)


def check_rows(cfg: RunConfig, session: Session) -> None:
    """Raises ConfigError where no row that can be predicted begins so."""
    only, rows = cfg.measure.only, [target.row_id for target in targets()]
    if not any(row.startswith(only) for row in rows):
        files = ", ".join(sorted({row.split(":")[0] for row in rows}))
        why = next((f" ({reason})" for row, reason in unpredicted().items() if row.startswith(only)), "")
        text = (
            f"{only!r} begins no row that is predicted{why}; allowed: FILE:LINE or its beginning, of {files}"
        )
        raise ConfigError("measure.only", text)


def candidates(cfg: RunConfig) -> dict[str, RunConfig]:
    """The runs that may be meant, by what tells them apart: M and degrees where these are not stated."""
    target: Target = cfg.measure
    every: list[int | None] = [*target.patches] or [None]
    found = {}
    for given in target.products or [target.parallel]:
        for patches in every:
            own = {} if patches is None else {"patches": patches}
            degrees = degrees_text(given) if target.products else ""
            name = ", ".join(part for part in (degrees, str(patches or "")) if part)
            method = replace(cfg.method, **own)
            found[name] = replace(cfg, parallel=Parallel(**given), method=method)
    return found


def degrees_text(given: dict[str, int]) -> str:
    """Degrees beside a method's own."""
    return " x ".join(f"{axis} {degree}" for axis, degree in given.items())


def why_not(cfg: RunConfig, model: Model) -> str | None:
    """Why no candidate can run: the first one's reason."""
    reasons = [problem(one, model) for one in candidates(cfg).values()]
    return None if None in reasons else reasons[0]


def row_place(cfg: RunConfig) -> Row:
    """The first columns of a prediction: its run, and the published row with what is to be known of it."""
    target: Target = cfg.measure
    columns = place(cfg) | {
        "warmup": target.warmup,
        "split": target.split,
        "patches": None,
        "host": target.host,
    }
    columns |= {"row_id": target.row_id, "published_s": target.published_s, "published_oom": target.oom}
    marks = ("digitized", "notes", "flags", "duplicate_of", "contradicted_by")
    return columns | {key: getattr(target, key) for key in marks}


def measure(cell: Cell, session: Session) -> list[Row]:
    """The one row of a published row; what several sources print is predicted once."""
    plain = replace(cell.cfg.measure, row_id="", published_s=None, oom=False, digitized=False, notes=[])
    run = replace(plain, flags=[], duplicate_of=None, contradicted_by=[])
    return [session.once(("prediction", repr(run)), lambda: fastest(cell.cfg, session))]


def program_bytes(target: Target, found: Planned) -> int:
    """What the published program holds on its fullest device: beside ours in the gathers of DistriFusion K, V a second
    time, and its encoders, unless these make room for the transformer."""
    twice = found.cfg.method.name == "distrifusion"
    held = max(rank.meter.peak_bytes + twice * rank.buffer_bytes.get("kv", 0) for rank in found.ranks)
    encoders = part_bytes(target.model, "text_encoder", 2)
    assert encoders is not None, target.model
    encoders += 2 * T5_WIDE * (target.model in T5_HALF)
    return max(held, encoders) if target.offloaded else held + encoders


def fastest(cfg: RunConfig, session: Session) -> Row:
    """Seconds of the fastest candidate that fits as published, and of decoding where these are timed too; where none
    fits, the bytes that the leanest misses."""
    model, target = session.model(cfg.model), cfg.measure
    able = {name: one for name, one in candidates(cfg).items() if problem(one, model) is None}
    planned = {name: plan(one, session) for name, one in able.items()}
    missing = {name: program_bytes(target, one) - one.room_bytes for name, one in planned.items()}
    decode_s = decoding_seconds(cfg, session) if target.decoded else 0.0
    fits = {name: one.latency_s for name, one in planned.items() if one.latency_s and missing[name] <= 0}
    seconds = {name: latency_s + decode_s for name, latency_s in fits.items()}
    best = min(seconds or able, key=lambda name: seconds.get(name, missing[name]))
    cfg, found = able[best], planned[best]
    given = {axis: degree for axis, degree in vars(cfg.parallel).items() if degree > 1}
    row: Row = {
        "parallel": place(cfg)["parallel"],
        "product": degrees_text(given) or None,
        "patches": getattr(cfg.method, "patches", None),
        "predicted_s": seconds.get(best),
        "decode_s": decode_s,
        "missing_bytes": max(0, missing[best]),
        "peak_bytes": found.peak_bytes,
        "program_bytes": program_bytes(target, found),
        "own_oom": found.latency_s is None,
        "borrowed": ", ".join(borrowed(cfg.cluster, cfg.devices)),
        "calibrated_on": calibration_rows(cfg.cluster),
    }
    if not seconds:
        text = f"the published program needs {missing[best]} bytes more than the {found.room_bytes} there are"
        return row | {"status": "oom", "reason": text}
    row |= {key: max(getattr(rank, key) for rank in found.ranks) for key in ("compute_s", "wait_s")}
    by_name = {name: value for name, value in seconds.items() if name}
    return row | {"candidates": json.dumps(by_name)}


def facts(cfg: RunConfig, rows: pd.DataFrame, session: Session) -> dict[str, Any]:
    """The other published rows, and why nothing is predicted for them."""
    others = {row: why for row, why in unpredicted().items() if row.startswith(cfg.measure.only)}
    return {"not_predicted": others}


def summary(record: Record) -> str:
    """What the predictions are right about."""
    return verdicts(report.joined(report.plain(record.rows), FOLDER))


PREDICT = Study(
    "predict",
    measure,
    (
        *("row_id", "model", "cluster", "resolution", "devices", "method", "product", "patches", "warmup"),
        *("published_s", "predicted_s", "missing_bytes", "status"),
    ),
    "Published latencies, predicted",
    grid=runs,
    problem=why_not,
    place=row_place,
    facts=facts,
    summary=summary,
    check=check_rows,
)
