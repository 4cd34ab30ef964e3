"""Studies: a grid of cells, what is measured in each, and the columns of its rows. `runner.py` runs them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import RenderableType

from analysis.presentation.columns import Column
from analysis.records.study import Record
from experiments.config import RunConfig
from experiments.grid import GridsConfig, expand, place, problem
from experiments.journal import Row
from experiments.models.model import Model
from experiments.session import Session


@dataclass(frozen=True)
class Cell:
    """One point of a study: a resolved run configuration, the first columns of its rows, and why it is skipped."""

    cfg: RunConfig
    place: Row
    key: str
    skipped: str | None = None


Measure = Callable[[Cell, Session], list[Row]]


def grid_of_measure(cfg: RunConfig, session: Session) -> Iterable[RunConfig]:
    """The combinations of the lists of `measure`."""
    if isinstance(cfg.measure, GridsConfig):
        return (one for grid in cfg.measure.each() for one in expand(cfg, grid))
    return expand(cfg, cfg.measure)


def nothing_to_prepare(todo: Sequence[Cell], cfg: RunConfig, session: Session) -> None:
    """Cells share nothing but the session."""


def model_and_size(cell: Cell) -> Hashable:
    """Cells that share a model's view and the costs of its blocks."""
    return (cell.cfg.cluster.name, *(cell.place[key] for key in ("model", "height", "width")))


def by_itself(cell: Cell) -> Hashable:
    """Every cell is a task of its own."""
    return cell.key


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


def no_summary(record: Record) -> RenderableType:
    """Nothing below the table."""
    return ""


def no_check(cfg: RunConfig, session: Session) -> None:
    """Nothing of the study's own."""


@dataclass(frozen=True)
class Study:
    """A grid, what is measured in a cell, and how the rows are read.

    `grid(cfg, session)` gives the configurations, those of `measure`'s lists unless another function is given;
    `measure(cell, session)` the rows of one, beginning with the cell's own columns unless they replace these. A row
    without a status is `ok`. `prepare(todo, cfg, session)` makes what the cells that are left to be measured share.
    `place(cfg)`: the first columns of a cell's rows. `group(cell)`: cells that share work and are measured by one
    process, one after the other. `facts(cfg, rows, session)`: what the record says beside the rows, or in place of
    what it says of itself. `derived(rows)`: the table with columns that depend on other cells, such as a ratio to
    serial. `failures(rows)`: a line for each row that ran and is not what it must be. `check(cfg, session)` raises
    ConfigError. `options`: lists of the grid that decide what a cell measures; `single`: those of one value at
    most. `alone`: cells are measured by this process, for those that start ranks or take times. `scratch`: folders
    beside the record that cells share, removed at the end.
    """

    name: str
    measure: Measure
    columns: tuple[str | Column, ...]
    title: str | Callable[[Record], str] = ""
    note: str = ""
    grid: Callable[[RunConfig, Session], Iterable[RunConfig]] = grid_of_measure
    problem: Callable[[RunConfig, Model], str | None] = problem
    prepare: Callable[[Sequence[Cell], RunConfig, Session], None] = nothing_to_prepare
    place: Callable[[RunConfig], Row] = place
    group: Callable[[Cell], Hashable] = model_and_size
    facts: Callable[[RunConfig, pd.DataFrame, Session], dict[str, Any]] = no_facts
    failures: Callable[[pd.DataFrame], list[str]] = no_failures
    derived: Callable[[pd.DataFrame], pd.DataFrame] = unchanged
    shown: Callable[[Record], pd.DataFrame] = all_rows
    summary: Callable[[Record], RenderableType] = no_summary
    check: Callable[[RunConfig, Session], None] = no_check
    options: tuple[str, ...] = ()
    single: tuple[str, ...] = ()
    alone: bool = False
    scratch: tuple[str, ...] = ()

    @property
    def modules(self) -> frozenset[str]:
        """Where it is decided what a cell measures: with all that these import, the code that its key is made of."""
        return frozenset(one.__module__ for one in (self.measure, self.problem, self.prepare, self.place))

    @property
    def names(self) -> list[str]:
        """The columns of its table."""
        return [one.name if isinstance(one, Column) else one for one in self.columns]
