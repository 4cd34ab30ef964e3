"""`measure=staleness`: how stale the K, V of every method are, how alike they are from step to step, what it costs.

Five tables beside `staleness.json`, all measured through the methods' own code in the simulated world:

- `freshness.csv`: the age of every K, V that a self-attention sees, asked of each method (probe.py);
- `redundancy.csv`: the change of hidden states, K, V and latents from step to step, in serial (redundancy.py);
- `error.csv`: attention to stale K, V against attention to fresh ones (errors.py);
- `steps.csv`: the latent after every step against serial's after the same step, by picture (trajectory.py);
- `map.csv`: the error of the final latent by token position.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.check import check_model
from experiments.config import RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, check_known, config_names
from experiments.methods import METHODS
from experiments.models import scheduler_of
from experiments.records import write_csv, write_json
from experiments.staleness.errors import StaleErrors
from experiments.staleness.freshness import FreshnessConfig, freshness
from experiments.staleness.probe import probe
from experiments.staleness.redundancy import Changes
from experiments.staleness.settings import Setting, settings_of
from experiments.staleness.subject import Subject, listed_prompts, subject_of
from experiments.staleness.trajectory import Trajectory, relative_errors
from pipefusion.core.domain import Count, Devices, Grid, Patches, Warmup
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import split_rows
from pipefusion.sim.engine import RankFailed

TABLES = ("freshness", "redundancy", "error", "steps", "map")
DIGITS = 6
"""Significant digits of what the tables hold."""
EXPLAINED = 1e-3
"""How far off the attention may be that the probe and the K, V of earlier steps explain; float noise is 1e-6."""


@dataclass
class StalenessConfig:
    """`pictures` of as many prompts. `methods` run at W = `watched`, where attention is watched and the map drawn, and
    those of them that are `swept` at each of `warmups` as well.

    N is `devices`, but 1 for a method that has M of its own, `patches`: its result does not depend on N.
    """

    name: str = "staleness"
    pictures: Count = 16
    devices: Devices = 4
    patches: Patches = 4
    methods: Grid[str] = field(default_factory=lambda: [name for name in METHODS if not METHODS[name].exact])
    watched: Warmup = 1
    swept: list[str] = field(default_factory=lambda: ["distrifusion", "pipefusion"])
    warmups: list[Warmup] = field(default_factory=lambda: [0, 1, 2, 4])
    probe: FreshnessConfig = field(default_factory=FreshnessConfig)


def check_staleness(cfg: RunConfig) -> None:
    """Names that do not exist, numbers that measure nothing. Raises ConfigError."""
    options: StalenessConfig = cfg.measure
    names = {"methods": METHODS, "swept": options.methods, "probe.model": config_names("model")}
    check_known(cfg, {f"measure.{key}": allowed for key, allowed in names.items()})
    if cfg.steps < 2:
        raise ConfigError("steps", f"{cfg.steps} leaves no step with an age; allowed: 2 or more")
    if not isinstance(cfg.seed, int):
        raise ConfigError("seed", f"{cfg.seed} is no number; allowed: one number, of the first picture")
    if cfg.model.dtype != "float32":
        raise ConfigError("model.dtype", f"{cfg.model.dtype} has errors of its own; allowed: float32")
    model = check_model(cfg)
    listed = len(listed_prompts(cfg, model))
    if options.pictures > listed:
        text = f"{options.pictures} pictures, and there are {listed} prompts; allowed: 1..{listed}"
        raise ConfigError("measure.pictures", text)
    timesteps = scheduler_of(model, cfg.scheduler, cfg.steps).timesteps
    if len(timesteps.unique()) < len(timesteps):
        raise ConfigError("steps", f"{cfg.steps} makes timesteps that repeat; allowed: fewer")


def staleness(cfg: RunConfig, out: Path) -> str:
    """Measure everything into `out`, print the tables; `failed` if a run did, or does what the probe does not know."""
    import pandas as pd

    options: StalenessConfig = cfg.measure
    torch.set_num_threads(cfg.threads)
    started = time.time()
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    tables["freshness"], probes = freshness(options.probe)
    subject = subject_of(cfg, options.pictures)
    shape = subject.model.shape
    changes = Changes(shape, split_rows(shape.token_rows, min(options.patches, shape.token_rows)))
    serial = subject.run(Setting("serial"), changes)
    changes.latents(serial.inputs)
    tables["redundancy"] = [*changes.rows()]
    runs = [measured(setting, subject, serial, options.watched, tables) for setting in chosen(options)]
    record = {
        "model": cfg.model.name,
        "probes": probes,
        "runs": runs,
        "prompts": subject.prompts,
        "guidance_scale": subject.cond.guidance_scale,
        "branches": subject.cond.branches,
        "token_rows": shape.token_rows,
        "token_cols": shape.token_cols,
        "layers": shape.layers,
        "timesteps": subject.scheduler.timesteps.tolist(),
        "scheduler": type(subject.scheduler).__name__,
        "seconds": time.time() - started,
        **provenance(),
        "config": as_dict(cfg),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_csv(out / f"{name}.csv", pd.DataFrame([rounded(row) for row in rows]).convert_dtypes())
    write_json(out / "staleness.json", record)
    show(out)
    wrong = [run for run in runs if run["status"] == "failed"]
    for run in wrong:
        print(f"failed: {run['method']} W={run['warmup']}: {run['reason']}", file=sys.stderr)
    return "failed" if wrong else "ok"


def chosen(options: StalenessConfig) -> list[Setting]:
    """The settings that are run on the model, each once."""
    return [
        setting
        for method in options.methods
        for setting in settings_of(
            method,
            [1 if METHODS[method].has("patches") else options.devices],
            [options.patches],
            sorted({options.watched, *(options.warmups if method in options.swept else [])}),
        )
    ]


def measured(
    setting: Setting,
    subject: Subject,
    serial: Trajectory,
    watched: int,
    tables: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Run one setting and add to the tables; its own row, which says `skipped` or `failed` where it did not run."""
    shape, steps = subject.model.shape, len(subject.scheduler.timesteps)
    row = setting.columns() | {"watched": setting.warmup in (None, watched), "reason": None}
    problem = setting.problem(shape, steps)
    if problem is not None:
        return row | {"status": "skipped", "reason": f"{problem.key}={problem.message}"}
    started = time.time()
    try:
        watcher = (
            StaleErrors(shape, probe(subject.view, setting, subject.scheduler)) if row["watched"] else None
        )
        run = subject.run(setting, watcher)
    except RankFailed as error:
        return row | {"status": "failed", "reason": str(error)}
    errors = relative_errors(run.steps, serial.steps)
    tables["steps"] += [
        setting.columns() | {"step": step, "picture": picture, "relative_error": float(errors[step, picture])}
        for step in range(steps)
        for picture in range(errors.shape[1])
    ]
    row |= {"status": "ok", "seconds": time.time() - started}
    if watcher is None:
        return row
    found = [*watcher.rows()]
    tables["error"] += [setting.columns() | one for one in found]
    tables["map"] += [
        setting.columns() | position for position in position_errors(run.latents, serial.latents, shape)
    ]
    # Of NaN and a number Python's max may be either; torch's is NaN.
    worst = float(torch.tensor([0.0, *(one["unexplained"] or 0.0 for one in found)]).max())
    if not worst < EXPLAINED:
        row |= {"status": "failed", "reason": f"attention is {worst:.1e} off what the probe explains"}
    return row | {"unexplained": worst}


def position_errors(got: Tensor, want: Tensor, shape: DiTShape) -> Iterator[dict[str, Any]]:
    """By token position: root mean square over pictures, channels and pixels of the error, and of `want` itself."""

    def by_token(latents: Tensor) -> Tensor:
        """[B, C, H, W] -> [token rows, token columns]."""
        grid = latents.unflatten(3, (-1, shape.patch_size)).unflatten(2, (-1, shape.patch_size))
        return grid.square().mean((0, 1, 3, 5)).sqrt()

    errors, sizes = by_token(got - want), by_token(want)
    for row in range(shape.token_rows):
        for column in range(shape.token_cols):
            found = {"rms_error": float(errors[row, column]), "rms_serial": float(sizes[row, column])}
            yield {"row": row, "column": column} | found


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its floats cut to the digits that mean something, so that records stay small."""
    return {
        key: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for key, value in row.items()
    }


def show(out: Path) -> None:
    """Print both tables."""
    # Here and not above: matplotlib and pandas' tables are for those who print them.
    from analysis.columns import words
    from analysis.staleness import tables as report
    from analysis.terminal import make_console, rich_table
    from experiments.records import display

    console, record = make_console(), report.load(out)
    console.print(rich_table(words(report.freshness(record), report.FRESHNESS), "How fresh the K, V are"))
    console.print(rich_table(words(report.errors(record), report.ERRORS), "What staleness does"))
    for path in sorted(out.glob("*.csv")):
        console.print(display(path), highlight=False, soft_wrap=True)
    console.print(display(out / "staleness.json"), highlight=False, soft_wrap=True)
