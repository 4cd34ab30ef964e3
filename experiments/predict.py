"""`measure=predict`: every published row that can be, predicted by its run on the named hardware."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import track

from analysis.evidence import predictions as report
from experiments.config import CONF, RunConfig
from experiments.environment import provenance
from experiments.errors import ConfigError
from experiments.facts import calibration_rows
from experiments.fit import config_of
from experiments.methods import problem_of
from experiments.plan import Planned, plan
from experiments.published import Target, targets, unpredicted
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
            str((target.products, target.parallel)),
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
    table = report.joined(predictions, CONF.parent / "results" / "published")
    print(report.verdicts(table))
    print(out / "predictions.json")
    return "ok"


def prediction(target: Target, session: Session) -> dict[str, Any]:
    """Seconds, or the bytes missing, of a row's run; with several candidates for M or degrees, the fastest's."""
    tried: list[tuple[Target, int | None, Planned]] = []
    candidates: list[int | None] = [*target.patches] or [None]
    for parallel in target.products or [target.parallel]:
        one = replace(target, parallel=parallel)
        cfg, model = config_of(one, candidates[0])
        for patches in candidates:
            method = cfg.method if patches is None else replace(cfg.method, patches=patches)
            run = replace(cfg, method=method)
            problem = problem_of(model.shape, run)
            if problem is None:
                tried.append((one, patches, plan(run, session)))
            elif len(candidates) == 1 and not target.products:
                reason = f"{problem.key}: {problem.message}"
                failed = {"status": "failed", "predicted_s": None, "missing_bytes": 0, "reason": reason}
                return failed | fitted_on(cfg)
    fits = [each for each in tried if each[2].latency_s is not None]
    if fits:
        one, patches, planned = min(fits, key=lambda each: each[2].latency_s or 0.0)
        repeats = [report.repeats[-1] for report in planned.reports]
        found = {
            "status": "ok",
            "candidates": {
                candidate(target, *each[:2]): each[2].latency_s for each in fits if each[1] or target.products
            },
            "peak_bytes": planned.peak_bytes,
            **{key: max(float(repeat[key] or 0) for repeat in repeats) for key in ("compute_s", "wait_s")},
        }
    else:
        one, patches, planned = min(tried, key=lambda each: each[2].missing_bytes)
        found = {"status": "oom"}
    said = {"predicted_s": planned.latency_s, "missing_bytes": planned.missing_bytes if not fits else 0}
    return found | said | {"patches": patches, "parallel": one.parallel} | fitted_on(cfg)


def candidate(target: Target, one: Target, patches: int | None) -> str:
    """What tells a candidate from the others: M, and the degrees where they are not stated."""
    degrees = " x ".join(f"{axis} {n}" for axis, n in one.parallel.items()) if target.products else ""
    return ", ".join(part for part in (degrees, "" if patches is None else str(patches)) if part)


def fitted_on(cfg: RunConfig) -> dict[str, list[str]]:
    """The published rows that the run's device and links were fitted on."""
    return {"calibrated_on": calibration_rows(cfg.cluster)}
