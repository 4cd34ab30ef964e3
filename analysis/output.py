"""A committed table or figure: the function that makes it, and the records it is made from."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from analysis.presentation.style import Drawing
from analysis.presentation.tables import Table
from analysis.records.committed import commands

T = TypeVar("T")

FEW = 4
"""So many outputs are made in less time than it takes to start processes for them."""


@dataclass(frozen=True)
class Output:
    """One row of `OUTPUTS`. Its name, and the first part of its files' names, is that of `make`.

    `make` gets the results folder and returns tables and figures; its docstring is the caption: what is seen, and
    where each series is from. `records` are all it reads: files, folders or patterns
    (`records/quickstart/**/run.json`) below the results folder. `paper` is the figure, table or section of the paper
    that it reproduces, if any.
    """

    make: Callable[[Path], Sequence[Table | Drawing]]
    records: tuple[str, ...]
    paper: str = ""
    also: str = ""  # the name of its experiment, where that is another

    @property
    def name(self) -> str:
        return self.make.__name__

    @property
    def caption(self) -> str:
        return " ".join((self.make.__doc__ or "").split())

    @property
    def commands(self) -> list[str]:
        """What makes its records."""
        return commands(self.records)

    def write(self, results: Path) -> list[Path]:
        """Make it of the records in a results folder, and write it there: tables in `tables`, figures in `figures`."""
        parts = self.make(results)
        folders = [results / ("tables" if isinstance(part, Table) else "figures") for part in parts]
        return [
            path
            for part, folder in zip(parts, folders, strict=True)
            for path in part.write(folder, self.name)
        ]


def source_files(output: Output, results: Path) -> list[Path]:
    """Every file that an output is made from, in order of path."""
    found: set[Path] = set()
    for pattern in output.records:
        for path in results.glob(pattern):
            found |= {path} if path.is_file() else {inner for inner in path.rglob("*") if inner.is_file()}
    return sorted(path for path in found if not path.name.startswith("."))


def missing(output: Output, results: Path) -> list[str]:
    """The records of an output that are not there. Of patterns some may match nothing, but not all records."""
    if not source_files(output, results):
        return list(output.records)
    return [path for path in output.records if "*" not in path and not (results / path).exists()]


@contextmanager
def alone(output: Output, results: Path) -> Iterator[Path]:
    """A results folder for this while that holds nothing but the records that an output names."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / results.resolve().name
        folder.mkdir()
        for path in source_files(output, results):
            copy = folder / path.relative_to(results)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path.resolve())
        yield folder


def each(
    do: Callable[[Output, Path], T], outputs: Sequence[Output], results: Path, processes: int = 2
) -> Iterator[T]:
    """What `do` gives for every output, in their order; in several processes, since drawing takes most of the time."""
    if processes == 1 or len(outputs) <= FEW:
        yield from (do(output, results) for output in outputs)
        return
    # Drawings and tables are full of references: most of what the collector does is to look at them in vain.
    with ProcessPoolExecutor(processes, initializer=gc.set_threshold, initargs=(100_000,)) as pool:
        yield from pool.map(do, outputs, [results] * len(outputs))
