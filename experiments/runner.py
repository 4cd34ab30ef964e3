"""The one way to run a study: leave out what is done, measure the rest side by side, record it, print its table.

Every cell is on the disk as soon as it is done (`cells/`), so that the same command goes on where it was killed. A cell
is done when its key is there: a hash of its configuration, of the contents of the files that it is made of, and of the
import closure of the code that measures it.
"""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from collections.abc import Collection, Hashable, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from analysis.presentation.columns import column, typed, words
from analysis.presentation.terminal import make_console, rich_table
from analysis.records.files import replacing
from analysis.records.record import RECORD, ROWS, SCHEMA
from analysis.records.study import Record, load_study, plain_rows
from experiments.closure import Code
from experiments.config import RunConfig, as_dict, read_prompts
from experiments.environment import provenance
from experiments.errors import ConfigError, RunFailed, first_line
from experiments.grid import GridConfig, check_grid
from experiments.journal import CELLS, Journal, Row
from experiments.models.contents import hash_json, model_digests
from experiments.models.inputs import text_source
from experiments.models.model import Model, resolved
from experiments.pool import Bar, run_all, worker_count
from experiments.records import display, write_json
from experiments.runs.agent import failure_status
from experiments.runs.check import check_model, check_steps, check_values, checked_shape
from experiments.session import Session
from experiments.study import Cell, Measure, Study
from experiments.submit import submit_all

PROMPTS = ("prompt", "prompt_file", "images_per_prompt")
ENDED = ("ok", "skipped", "pruned")
"""Statuses of rows that are not measured again."""
IDLE = ("workers", "shown")
"""Keys of a measure that decide no result."""
PATHS = ("real", "data_dir", "clip")
"""Keys beside which stands a digest of what lies there."""


def run(study: Study, cfg: RunConfig, out: Path, launcher: dict[str, Any] | None = None) -> str:
    """Run a study into directory `out` and print its table; the run's status. With a `launcher` cells are its jobs."""
    started, session, journal = time.time(), Session(out, launcher=launcher), Journal(out / CELLS)
    cells = study_cells(study, cfg, session)
    had = known(out, journal) if cfg.resume else {}
    todo = [cell for cell in cells if cell.key not in had]
    if len(todo) < len(cells):
        print(f"{len(cells) - len(todo)} of {len(cells)} cells are done already", flush=True)
    if able := [cell for cell in todo if cell.skipped is None]:
        study.prepare(able, cfg, session)
    done = len(journal)
    bar = Bar(lambda: len(journal) - done, len(todo), f"cells of {study.name}", cfg.log.progress)
    measure_all(study, todo, cfg, session, bar)
    rows = typed(study.derived(table(cells, had | journal.read())))
    record = write(study, cfg, out, rows, study.facts(cfg, rows, session), time.time() - started)
    for name in (CELLS, *study.scratch):
        shutil.rmtree(out / name, ignore_errors=True)
    show(study, record, out, make_console())
    return verdict(study, rows)


def measure_all(
    study: Study, cells: Sequence[Cell], cfg: RunConfig, session: Session, bar: Bar, gpus: int = 0
) -> None:
    """Measure cells, each into the study's journal; with `gpus`, by processes that take turns of these."""
    journal = Journal(session.folder / CELLS)
    for cell in (cell for cell in cells if cell.skipped is not None):
        journal.append(cell.key, [cell.place | {"status": "skipped", "reason": cell.skipped}])
    groups = grouped(study, [cell for cell in cells if cell.skipped is None])
    workers = 1 if study.alone else worker_count(cfg, gpus)
    if session.launcher is not None:
        do = partial(measure_group, study.measure, session.folder.resolve(), session.code)
        submit_all(do, groups, session.launcher, workers, session.folder.resolve() / "logs", bar)
        return
    jobs = [(study.measure, session.folder, session.code, group) for group in groups]
    run_all(measure_group, jobs, workers, bar, study.measure.__module__, gpus)


def check(study: Study, cfg: RunConfig) -> None:
    """Whatever can be known to be wrong before anything is measured. Raises ConfigError."""
    if isinstance(cfg.measure, GridConfig):
        check_grid(cfg.measure)
        for name in study.single:
            if len(values := getattr(cfg.measure, name)) > 1:
                raise ConfigError(f"measure.{name}", f"{values} are several; allowed: one")
    for index, grid in enumerate(getattr(cfg.measure, "grids", [])):
        check_grid(grid, f"measure.grids.{index}")
    check_values(cfg)
    session = Session()
    study.check(cfg, session)
    cells = study_cells(study, cfg, session)
    if all(cell.skipped for cell in cells):
        reason = f": {cells[0].skipped}" if cells else ""
        raise ConfigError("measure", f"{study.name} leaves no cell that can run{reason}")
    models: dict[str, Model] = {}
    able = [cell.cfg for cell in cells if cell.skipped is None]
    for (model, *_), one in {what_a_model_decides(one): one for one in able}.items():
        if model not in models:
            models[model] = check_model(one)
        check_steps(one, models[model])


def what_a_model_decides(cfg: RunConfig) -> tuple[str, str, int]:
    """What is right or wrong by the model alone: itself and its prompt, and how it is stepped. Sizes are cells'."""
    model = replace(cfg.model, resolution=None, height=None, width=None)
    return repr((model, cfg.prompt)), cfg.scheduler, cfg.steps


def study_cells(study: Study, cfg: RunConfig, session: Session) -> list[Cell]:
    """The cells of a study in order, each with its key."""
    return [make_cell(study, one, session) for one in study.grid(cfg, session)]


def make_cell(study: Study, cfg: RunConfig, session: Session) -> Cell:
    """One cell: a size that the model does not have is a reason to skip it."""
    try:
        model = session.model(cfg.model)
        checked_shape(model)
        cfg = resolved(cfg, model)
        reason = study.problem(cfg, model)
        contents = model_digests(model, text_source(cfg, model))
    except ValueError as error:
        reason, contents = first_line(error), {}
    decides = [study.name, session.code.sha256(study.modules), what_decides(study, cfg), read_prompts(cfg)]
    return Cell(cfg, study.place(cfg), hash_json([SCHEMA, *decides, contents]), reason)


def what_decides(study: Study, cfg: RunConfig) -> dict[str, Any]:
    """What of a configuration decides a cell's rows; what is decided by a file's content is not decided by its path."""
    found, idle = without(PATHS, cfg), {*IDLE}
    if isinstance(cfg.measure, GridConfig):
        idle |= {"grids", *(one.name for one in fields(GridConfig))} - {*study.options}
    found["measure"] = {key: value for key, value in found["measure"].items() if key not in idle}
    del found["model"]["weights"]
    return {key: value for key, value in found.items() if key not in ("log", "resume", *PROMPTS)}


def without(names: Collection[str], content: Any) -> Any:
    """Nested dataclasses, mappings and lists in plain Python, without keys of these names."""
    if isinstance(content, list | tuple):
        return [without(names, value) for value in content]
    if is_dataclass(content):
        content = vars(content)
    if not isinstance(content, dict):
        return content
    return {key: without(names, value) for key, value in content.items() if key not in names}


def known(out: Path, journal: Journal) -> dict[str, list[Row]]:
    """The rows of cells that an earlier run of the study has done, by key. Raises ConfigError if they are broken."""
    found: dict[str, list[Row]] = {}
    try:
        if (out / ROWS).exists() and (out / RECORD).exists():
            for row in plain_rows(load_study(out).rows):
                found.setdefault(row["key"], []).append(row)
        found |= journal.read()
    except (ValueError, KeyError) as error:
        text = f"true needs what was measured before, but {first_line(error)}"
        raise ConfigError("resume", f"{text}; allowed: false, or another hydra.run.dir") from None
    return {key: rows for key, rows in found.items() if all(map(ended, rows))}


def ended(row: Row) -> bool:
    """Whether a row stands. `oom` does where a plan foretells it: a device that ran out of memory may not again."""
    return row["status"] in ENDED or (row["status"] == "oom" and row.get("missing_bytes") is not None)


def grouped(study: Study, cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells by what they share; the largest devices first, so that no process is left alone with a long one."""
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(None if study.alone else study.group(cell), []).append(cell)
    return sorted(groups.values(), key=lambda group: -sum(cell.cfg.devices**2 for cell in group))


def measure_group(measure: Measure, out: Path, code: Code, cells: Sequence[Cell]) -> None:
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
        if failure.status == "interrupted":
            raise KeyboardInterrupt from failure
        rows = [{"status": failure.status, "reason": failure.reason}]
    except Exception as error:  # the other cells go on, and the record says what happened
        text = f"{type(error).__name__}: {first_line(error)}"
        logs = session.folder / "logs"
        logs.mkdir(exist_ok=True)
        (logs / f"{cell.key[:12]}.txt").write_text(traceback.format_exc())
        rows = [{"status": failure_status(text), "reason": text}]
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
        "columns": study.names,
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


def show(study: Study, record: Record, out: Path, console: Console) -> None:
    """Print the study's table, its summary, how many cells ended how, and where the record is."""
    shown = study.shown(record)
    shown = shown.reindex(columns=[*shown, *(name for name in study.names if name not in shown)])
    title = study.title if isinstance(study.title, str) else study.title(record)
    console.print(rich_table(words(shown, study.columns), title))
    for text in (study.summary(record), study.note):
        if text:
            console.print(text, highlight=False)
    counts = ", ".join(f"{count} {status}" for status, count in record.facts["counts"].items())
    console.print(f"{counts} in {record.facts['seconds']:.1f} s", highlight=False)
    console.print(display(out / RECORD), highlight=False, soft_wrap=True)


def verdict(study: Study, rows: pd.DataFrame) -> str:
    """`failed` if a cell did or is not what it must be, each in a line on stderr; else `ok`."""
    lines = [f"{row_name(row)}: {row['reason']}" for row in plain_rows(rows) if not ended(row)]
    lines += study.failures(rows)
    for line in lines:
        print(f"failed: {line}", file=sys.stderr)
    return "failed" if lines else "ok"


def row_name(row: Row) -> str:
    """What a row is of, in a few words: `pipefusion N=4 rank 1`."""
    rank = "" if row.get("rank") is None else f" rank {row['rank']}"
    return f"{row['method']} N={row['devices']}{rank}"
