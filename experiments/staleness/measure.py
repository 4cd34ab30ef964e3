"""`measure=staleness`: how stale the K, V of every method are, how alike they are from step to step, what it costs.

All is measured through the methods' own code in the simulated world. A row's `table` says what it is of:

- `probe`: a setting whose self-attentions were asked what they see, and `freshness`: the ages of that (probe.py);
- `redundancy`: the change of hidden states, K, V and latents from step to step, in serial (redundancy.py);
- `run`: a setting that was run on the model, and `steps`: its latent after every step against serial's, by picture;
- `error`: attention to stale K, V against attention to fresh ones, where it was watched (errors.py), and `map`: the
  error of the final latent by token position.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
import torch
from rich.table import Table
from torch import Tensor

from analysis.presentation.columns import words
from analysis.presentation.terminal import rich_table
from analysis.records.study import Record
from analysis.staleness import tables
from experiments.config import RunConfig
from experiments.difference import norm_of_difference
from experiments.grid import serial_reference
from experiments.journal import Row
from experiments.methods import parallel_degrees
from experiments.models.model import resolved
from experiments.session import Session, guidance_branches
from experiments.staleness.cells import TASK, cells, check_staleness, pictured, place_in_table, serial_run
from experiments.staleness.errors import StaleErrors
from experiments.staleness.probe import freshness_rows, probe
from experiments.staleness.redundancy import Changes
from experiments.staleness.watch import latents_by_step
from experiments.study import Cell, Study
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import split_rows

EXPLAINED = 1e-3
"""How far off the attention may be that the probe and the K, V of earlier steps explain; float noise is 1e-6."""


def measure(cell: Cell, session: Session) -> list[Row]:
    """The rows of a probe, of serial, or of a run."""
    if cell.place["table"] == "probe":
        return [{}, *of_table("freshness", freshness_rows(probe(cell.cfg, session)))]
    if cell.place["table"] == "redundancy":
        return redundancy(cell.cfg, session)
    return run_rows(cell.cfg, session)


def of_table(table: str, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows with the name of their table."""
    return ({"table": table} | row for row in rows)


def redundancy(cfg: RunConfig, session: Session) -> list[Row]:
    """Serial's changes."""
    shape = session.model(cfg.model).shape.cut(cfg.method.patch_axis)
    changes = Changes(shape, split_rows(shape.lines, min(cfg.measure.bands, shape.lines)))
    changes.latents(latents_by_step(cfg, session, changes.watch)[:-1])
    return changes.rows


def run_rows(cfg: RunConfig, session: Session) -> list[Row]:
    """A run's own row, which is `failed` where it does what the probe does not know, and those of its tables."""
    shape, started = session.model(cfg.model).shape.cut(cfg.method.patch_axis), time.time()
    serial = serial_reference(cfg)
    want = session.once(repr(serial), lambda: latents_by_step(serial, session))
    if getattr(cfg.method, "warmup", None) not in (None, cfg.measure.watched):
        got = latents_by_step(cfg, session)
        return [
            {"watched": False, "seconds": time.time() - started},
            *of_table("steps", step_errors(got, want)),
        ]
    watcher = StaleErrors(shape, parallel_degrees(cfg).mesh(), probe(cfg, session))
    got = latents_by_step(cfg, session, watcher.watch)
    # Of NaN and a number Python's max may be either; torch's is NaN.
    worst = float(torch.tensor([0.0, *(one["unexplained"] or 0.0 for one in watcher.rows)]).max())
    run: Row = {"watched": True, "unexplained": worst, "seconds": time.time() - started}
    if not worst < EXPLAINED:
        run |= {"status": "failed", "reason": f"attention is {worst:.1e} off what the probe explains"}
    found = (*of_table("steps", step_errors(got, want)), *of_table("error", watcher.rows))
    return [run, *found, *of_table("map", position_errors(got[-1], want[-1], shape))]


def step_errors(got: Tensor, want: Tensor) -> Iterator[Row]:
    """By step and picture: ||got - want|| / ||want|| of the latents, of [S + 1, B, C, H, W]. Raises NotFinite."""
    for step, errors in enumerate(norm_of_difference(got[1:], want[1:], 2).tolist()):
        for picture, error in enumerate(errors):
            yield {"step": step, "picture": picture, "relative_error": error}


def position_errors(got: Tensor, want: Tensor, shape: DiTShape) -> Iterator[Row]:
    """By token position: root mean square over pictures, channels and pixels of the error, and of `want` itself.

    Of a video by latent frame, in column 0.
    """

    def by_token(latents: Tensor) -> list[list[float]]:
        """[B, C, H, W] -> [token rows, token columns], or [B, C, F, H, W] -> [F, 1]."""
        if shape.frames is not None:
            frames: list[list[float]] = latents.square().mean((0, 1, 3, 4)).sqrt()[:, None].tolist()
            return frames
        grid = latents.unflatten(3, (-1, shape.patch_size)).unflatten(2, (-1, shape.patch_size))
        found: list[list[float]] = grid.square().mean((0, 1, 3, 5)).sqrt().tolist()
        return found

    for row, both in enumerate(zip(by_token(got - want), by_token(want), strict=True)):
        for column, (error, size) in enumerate(zip(*both, strict=True)):
            yield {"row": row, "column": column, "rms_error": error, "rms_serial": size}


def facts(cfg: RunConfig, rows: pd.DataFrame, session: Session) -> dict[str, Any]:
    """The model and the pictures of the runs."""
    model = session.model(serial_run(cfg).model)
    serial, shape = resolved(pictured(serial_run(cfg)), model), model.shape
    scheduler = session.scheduler(serial)
    return {
        "model": serial.model.name,
        "prompts": serial.prompt,
        "guidance_scale": serial.guidance_scale,
        "branches": guidance_branches(serial, shape),
        "token_rows": shape.token_rows,
        "token_cols": shape.token_cols,
        "frames": shape.frames,
        "layers": shape.layers,
        "timesteps": scheduler.timesteps.tolist(),
        "scheduler": type(scheduler).__name__,
    }


def by_method(cell: Cell) -> tuple[str, str]:
    """The probes, and the runs of a method, share a process, and what is serial's there."""
    return cell.place["table"], cell.cfg.method.name


def errors(record: Record) -> pd.DataFrame:
    """What staleness does in each run."""
    return tables.errors(tables.parts(record), ["parallel"])


def freshness(record: Record) -> Table:
    """How fresh the K, V of each probed setting are."""
    found = tables.freshness(tables.parts(record), ["parallel"]).drop(columns="reason")
    return rich_table(words(found, ["parallel", *tables.FRESHNESS]), "How fresh the K, V are")


STALENESS = Study(
    "staleness",
    measure,
    ("parallel", *tables.ERRORS),
    "What staleness does",
    grid=cells,
    place=place_in_table,
    group=by_method,
    facts=facts,
    shown=errors,
    summary=freshness,
    check=check_staleness,
    single=TASK,
)
