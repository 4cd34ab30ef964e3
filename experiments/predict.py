"""`measure=predict`: every published row that can be, predicted by its run on the named hardware."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import track

from experiments.config import CONF, RunConfig
from experiments.doubts import targets
from experiments.environment import provenance
from experiments.errors import ConfigError
from experiments.facts import calibration_rows
from experiments.fit import config_of
from experiments.methods import problem_of
from experiments.plan import Planned, plan
from experiments.published import Target, unpredicted
from experiments.records import write_json
from experiments.session import Session


@dataclass
class PredictConfig:
    """`only`: rows whose id begins so, predicted or not."""

    name: str = "predict"
    only: str = ""


def check_predict(cfg: RunConfig) -> None:
    """Raises ConfigError where no row begins so."""
    only = cfg.measure.only
    rows = [*(target.row_id for target in targets()), *unpredicted()]
    if not any(row.startswith(only) for row in rows):
        files = ", ".join(sorted({row.split(":")[0] for row in rows}))
        raise ConfigError(
            "measure.only", f"{only!r} begins no row; allowed: FILE:LINE or its beginning, of {files}"
        )


def predict(cfg: RunConfig, out: Path) -> str:
    """Predict all rows into `out`/predictions.json and print the table; returns the run's status."""
    from analysis import published

    session, predictions, known = Session(), [], {}
    rows = [target for target in targets() if target.row_id.startswith(cfg.measure.only)]
    started = time.time()
    for target in track(rows, "rows", transient=True, disable=not sys.stderr.isatty()):
        setting = (
            target.model,
            target.cluster,
            target.devices,
            target.method,
            target.resolution,
            target.steps,
            target.warmup,
            tuple(target.parallel.items()),
        )
        key = (*setting, target.split, tuple(target.patches))  # several sources print the same run
        if key not in known:
            known[key] = prediction(target, session)
        predictions.append(asdict(target) | known[key])
    others = {row: reason for row, reason in unpredicted().items() if row.startswith(cfg.measure.only)}
    record = {
        "predictions": predictions,
        "not_predicted": others,
        **provenance(),
        "seconds": time.time() - started,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "predictions.json", record)
    table = published.joined(predictions, CONF.parent / "results" / "published")
    print(published.verdicts(table))
    print(out / "predictions.json")
    return "ok"


def prediction(target: Target, session: Session) -> dict[str, Any]:
    """Seconds, or the bytes missing, of a row's run; with several candidates for M, of the fastest that fits."""
    cfg, model = config_of(target, target.patches[0] if target.patches else None)
    tried: list[tuple[int | None, Planned]] = []
    candidates: list[int | None] = [*target.patches] or [None]
    for patches in candidates:
        method = cfg.method if patches is None else replace(cfg.method, patches=patches)
        one = replace(cfg, method=method)
        problem = problem_of(model.shape, one)
        if problem is None:
            tried.append((patches, plan(one, session)))
        elif patches is None or len(target.patches) == 1:
            reason = f"{problem.key}: {problem.message}"
            return {
                "status": "failed",
                "predicted_s": None,
                "missing_bytes": 0,
                "reason": reason,
            } | fitted_on(cfg)
    fits = [
        (planned.latency_s, patches, planned) for patches, planned in tried if planned.latency_s is not None
    ]
    if not fits:
        best, planned = min(tried, key=lambda each: each[1].missing_bytes)
        return {
            "status": "oom",
            "predicted_s": None,
            "missing_bytes": planned.missing_bytes,
            "patches": best,
        } | fitted_on(cfg)
    latency, best, planned = min(fits, key=lambda each: each[0])
    return {
        "status": "ok",
        "predicted_s": latency,
        "missing_bytes": 0,
        "patches": best,
        "candidates": {str(m): seconds for seconds, m, _ in fits if m is not None},
        "peak_bytes": planned.peak_bytes,
        "compute_s": max(float(report.repeats[-1]["compute_s"] or 0) for report in planned.reports),
        "wait_s": max(float(report.repeats[-1]["wait_s"] or 0) for report in planned.reports),
    } | fitted_on(cfg)


def fitted_on(cfg: RunConfig) -> dict[str, list[str]]:
    """The published rows that the run's device and links were fitted on."""
    return {"calibrated_on": calibration_rows(cfg.cluster)}
