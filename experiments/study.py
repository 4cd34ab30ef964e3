"""Studies: a grid of cells, what is measured in each, and the columns of its rows; and the one way to run them.

`run` expands the grid, leaves out what is done, measures the rest in processes side by side, and writes `rows.parquet`
and `record.json`. Every cell is on the disk as soon as it is done (`cells/`), so that the same command goes on where
it was killed. A cell is done when its key is there: a hash of its configuration, of the contents of the files that it
is made of, and of the code that measures it.
"""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from analysis.columns import Column, column, typed, words
from analysis.files import replacing
from analysis.record import SCHEMA
from analysis.study import RECORD, ROWS, Record, load_study
from analysis.terminal import make_console, rich_table
from experiments.agent import status_of
from experiments.check import check_model, check_values, checked_shape
from experiments.config import RunConfig, as_dict, prompts_of
from experiments.contents import contents_of, sha256_of_json
from experiments.environment import provenance
from experiments.errors import ConfigError, RunFailed, first_line
from experiments.grid import GridConfig, GridsConfig, check_grid, expand, place, problem
from experiments.inputs import text_of
from experiments.journal import Journal, Row
from experiments.models import Model, resolved
from experiments.pool import Bar, run_all, worker_count
from experiments.records import write_json
from experiments.session import Session

CELLS = "cells"
FILES = (RECORD, ROWS, CELLS, "logs")
"""What a study writes into its directory."""
PROMPTS = ("prompt", "prompt_file", "images_per_prompt")
ENDED = ("ok", "skipped", "pruned", "oom")
"""Statuses of rows that are not measured again."""
IDLE = ("workers", "shown")
"""Keys of a measure that decide no result."""


@dataclass(frozen=True)
class Cell:
    """One point of a study: a resolved run configuration, the first columns of its rows, and why it is skipped."""

    cfg: RunConfig
    place: Row
    key: str
    skipped: str | None = None


Measure = Callable[[Cell, Session], list[Row]]


def grid_of_measure(cfg: RunConfig) -> Iterable[RunConfig]:
    """The combinations of the lists of `measure`."""
    if isinstance(cfg.measure, GridsConfig):
        return (one for grid in cfg.measure.each() for one in expand(cfg, grid))
    return expand(cfg, cfg.measure)


def model_and_size(cell: Cell) -> Hashable:
    """Cells that share a model's view and the costs of its blocks."""
    return (cell.cfg.cluster.name, *(cell.place[key] for key in ("model", "height", "width")))


def no_facts(cfg: RunConfig, rows: pd.DataFrame, session: Session) -> dict[str, Any]:
    """Nothing beside the rows."""
    return {}


def no_failures(rows: pd.DataFrame) -> list[str]:
    """Whatever ran is right."""
    return []


def unchanged(rows: pd.DataFrame) -> pd.DataFrame:
    """No column depends on other cells."""
    return rows


def all_rows(record: Record) -> pd.DataFrame:
    """The table as it is."""
    return record.rows


def no_summary(record: Record) -> str:
    """No sentence below the table."""
    return ""


def no_check(cfg: RunConfig, session: Session) -> None:
    """Nothing of the study's own."""


@dataclass(frozen=True)
class Study:
    """A grid, what is measured in a cell, and how the rows are read.

    `grid(cfg)` gives the configurations, those of `measure`'s lists unless another function is given; `measure(cell,
    session)` the rows of one, beginning with the cell's own columns unless they replace these. A row without a status
    is `ok`. `place(cfg)`: the first columns of a cell's rows. `group(cell)`: cells that share work and are measured by
    one process, one after the other. `facts(cfg, rows, session)`: what the record says beside the rows, or in place of
    what it says of itself. `derived(rows)`: the table with columns that depend on other cells, such as a ratio to
    serial. `failures(rows)`: a line for each row that ran and is not what it must be. `check(cfg, session)` raises
    ConfigError. `options`: lists of the grid that decide what a cell measures. `alone`: cells are measured by this
    process, for those that start ranks or take times. `scratch`: folders beside the record that cells share, removed
    at the end.
    """

    name: str
    measure: Measure
    columns: tuple[str | Column, ...]
    title: str = ""
    note: str = ""
    grid: Callable[[RunConfig], Iterable[RunConfig]] = grid_of_measure
    problem: Callable[[RunConfig, Model], str | None] = problem
    place: Callable[[RunConfig], Row] = place
    group: Callable[[Cell], Hashable] = model_and_size
    facts: Callable[[RunConfig, pd.DataFrame, Session], dict[str, Any]] = no_facts
    failures: Callable[[pd.DataFrame], list[str]] = no_failures
    derived: Callable[[pd.DataFrame], pd.DataFrame] = unchanged
    shown: Callable[[Record], pd.DataFrame] = all_rows
    summary: Callable[[Record], str] = no_summary
    check: Callable[[RunConfig, Session], None] = no_check
    options: tuple[str, ...] = ()
    alone: bool = False
    scratch: tuple[str, ...] = ()


def run(study: Study, cfg: RunConfig, out: Path) -> str:
    """Run a study into directory `out` and print its table; the run's status."""
    started, session, journal = time.time(), Session(out), Journal(out / CELLS)
    cells = cells_of(study, cfg, session)
    had = known(out, journal) if cfg.resume else {}
    todo = [cell for cell in cells if cell.key not in had]
    if len(todo) < len(cells):
        print(f"{len(cells) - len(todo)} of {len(cells)} cells are done already", flush=True)
    done = len(journal)
    bar = Bar(lambda: len(journal) - done, len(todo), f"cells of {study.name}", cfg.log.progress)
    measure_all(study, todo, cfg, session, bar)
    rows = typed(study.derived(table(cells, had | journal.read())))
    record = write(study, cfg, out, rows, study.facts(cfg, rows, session), time.time() - started)
    for name in (CELLS, *study.scratch):
        shutil.rmtree(out / name, ignore_errors=True)
    show(study, record, make_console())
    return verdict(study, rows)


def measure_all(
    study: Study, cells: Sequence[Cell], cfg: RunConfig, session: Session, bar: Bar, gpus: int = 0
) -> None:
    """Measure cells, each into the study's journal; with `gpus`, by processes that take turns of these."""
    journal = Journal(session.folder / CELLS)
    for cell in (cell for cell in cells if cell.skipped is not None):
        journal.append(cell.key, [cell.place | {"status": "skipped", "reason": cell.skipped}])
    groups = grouped(study, [cell for cell in cells if cell.skipped is None])
    jobs = [(study.measure, group, session.folder, session.code) for group in groups]
    workers = 1 if study.alone else worker_count(cfg, gpus)
    run_all(measure_group, jobs, workers, bar, study.measure.__module__, gpus)


def check(study: Study, cfg: RunConfig) -> None:
    """Whatever can be known to be wrong before anything is measured. Raises ConfigError."""
    if isinstance(cfg.measure, GridConfig):
        check_grid(cfg.measure)
    for index, grid in enumerate(getattr(cfg.measure, "grids", [])):
        check_grid(grid, f"measure.grids.{index}")
    check_values(cfg)
    session = Session()
    study.check(cfg, session)
    cells = cells_of(study, cfg, session)
    if all(cell.skipped for cell in cells):
        reason = f": {cells[0].skipped}" if cells else ""
        raise ConfigError("measure", f"{study.name} leaves no cell that can run{reason}")
    for cell in {repr(cell.cfg.model): cell for cell in cells if cell.skipped is None}.values():
        check_model(cell.cfg)


def cells_of(study: Study, cfg: RunConfig, session: Session) -> list[Cell]:
    """The cells of a study in order, each with its key."""
    return [cell_of(study, one, session) for one in study.grid(cfg)]


def cell_of(study: Study, cfg: RunConfig, session: Session) -> Cell:
    """One cell: a size that the model does not have is a reason to skip it."""
    try:
        model = session.model(cfg.model)
        checked_shape(model)
        cfg = resolved(cfg, model)
        reason = study.problem(cfg, model)
        contents = contents_of(model, text_of(cfg, model))
    except ValueError as error:
        reason, contents = first_line(error), {}
    measure = {key: value for key, value in asdict(cfg.measure).items() if key not in IDLE}
    if isinstance(cfg.measure, GridConfig):
        lists = {"grids", *(one.name for one in fields(GridConfig))} - {*study.options}
        measure = {key: value for key, value in measure.items() if key not in lists}
    decides = asdict(cfg) | {"measure": measure}
    for name in ("log", "resume", *PROMPTS):
        del decides[name]
    del decides["model"]["weights"]
    key = sha256_of_json([SCHEMA, study.name, session.code, decides, prompts_of(cfg), contents])
    return Cell(cfg, study.place(cfg), key, reason)


def known(out: Path, journal: Journal) -> dict[str, list[Row]]:
    """The rows of cells that an earlier run of the study has done, by key."""
    found: dict[str, list[Row]] = {}
    if (out / ROWS).exists() and (out / RECORD).exists():
        rows = load_study(out).rows
        for row in rows.astype(object).where(rows.notna(), None).to_dict("records"):
            found.setdefault(row["key"], []).append({str(name): value for name, value in row.items()})
    found |= journal.read()
    return {key: rows for key, rows in found.items() if all(row["status"] in ENDED for row in rows)}


def grouped(study: Study, cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells by what they share; the largest devices first, so that no process is left alone with a long one."""
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(None if study.alone else study.group(cell), []).append(cell)
    return sorted(groups.values(), key=lambda group: -sum(cell.cfg.devices**2 for cell in group))


def measure_group(measure: Measure, cells: Sequence[Cell], out: Path, code: str) -> None:
    """Measure cells one after the other, and write each as it is done; in a process of its own or in this one."""
    session, journal = Session(out, code), Journal(out / CELLS)
    torch.set_num_threads(cells[0].cfg.threads)
    for cell in cells:
        journal.append(cell.key, measured_rows(measure, cell, session))


def measured_rows(measure: Measure, cell: Cell, session: Session) -> list[Row]:
    """The rows of a cell; one that says why, where it did not end well."""
    try:
        with torch.inference_mode():
            rows = measure(cell, session)
        for name in rows[0] if rows else ():
            column(name)  # the registry has it
    except RunFailed as failure:
        rows = [{"status": failure.status, "reason": failure.reason}]
    except Exception as error:  # the other cells go on, and the record says what happened
        text = f"{type(error).__name__}: {first_line(error)}"
        logs = session.folder / "logs"
        logs.mkdir(exist_ok=True)
        (logs / f"{cell.key[:12]}.txt").write_text(traceback.format_exc())
        rows = [{"status": status_of(text), "reason": text}]
    return [{"status": "ok", "reason": None} | cell.place | row for row in rows]


def table(cells: Sequence[Cell], found: dict[str, list[Row]]) -> pd.DataFrame:
    """All rows in the order of the cells, each with its cell's key, columns of the registry's kinds."""
    lost = {"status": "failed", "reason": "the process that measured it was killed"}
    rows = [{"key": cell.key} | row for cell in cells for row in found.get(cell.key, [cell.place | lost])]
    return typed(pd.DataFrame(rows))


def write(
    study: Study, cfg: RunConfig, out: Path, rows: pd.DataFrame, facts: dict[str, Any], seconds: float
) -> Record:
    """Write rows.parquet and record.json, whole."""
    record = {
        "schema": SCHEMA,
        "study": study.name,
        "note": study.note,
        "columns": [*study.columns],
        "counts": {str(status): int(n) for status, n in rows.status.value_counts().items()},
        "config": as_dict(cfg),
        **provenance(),
        "seconds": seconds,
        **facts,
    }
    with replacing(out / ROWS) as temporary:
        rows.to_parquet(temporary, index=False)
    write_json(out / RECORD, record)
    return Record(record, rows)


def show(study: Study, record: Record, console: Console) -> None:
    """Print the study's table, its summary, how many cells ended how, and where the record is."""
    shown = study.shown(record)
    names = [one.name if isinstance(one, Column) else one for one in study.columns]
    shown = shown.reindex(columns=[*shown, *(name for name in names if name not in shown)])
    console.print(rich_table(words(shown, study.columns), study.title))
    for text in (study.summary(record), study.note):
        if text:
            console.print(text, highlight=False)
    counts = ", ".join(f"{count} {status}" for status, count in record.facts["counts"].items())
    console.print(f"{counts} in {record.facts['seconds']:.1f} s", highlight=False)


def verdict(study: Study, rows: pd.DataFrame) -> str:
    """`failed` if a cell did or is not what it must be, each in a line on stderr; else `ok`."""
    bad = rows[~rows.status.isin(ENDED)]
    lines = [f"{row_name(row)}: {row['reason']}" for row in bad.to_dict("records")]
    lines += study.failures(rows)
    for line in lines:
        print(f"failed: {line}", file=sys.stderr)
    return "failed" if lines else "ok"


def row_name(row: Mapping[Hashable, Any]) -> str:
    """What a row is of, in a few words: `pipefusion N=4 rank 1`."""
    rank = "" if pd.isna(row.get("rank")) else f" rank {row['rank']}"
    return f"{row['method']} N={row['devices']}{rank}"
