"""Copy finished runs among the records that are committed: ``python -m analysis keep FOLDER NAME``."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator
from pathlib import Path

from analysis.records.files import replacing_folder
from analysis.records.record import holder, load_record
from analysis.runs.frame import run_dirs

KEPT = ["run.json", "config.yaml", "ranks.csv", "ranks_repeats.csv", "ledger.parquet", "timeline.parquet"]
KEPT += ["inputs.safetensors", "latents.safetensors", "images"]
WHOLE = ["record.json", "measured.json", "gpu_check.json"]
"""A record of many runs at once; the folder that holds one is the run."""
KEPT += [*WHOLE, "rows.parquet", "gpu_check.md"]


def record_folder(records: Path, name: str) -> Path:
    """The folder of a record's name. Raises ValueError for a name that is not one folder below `records`."""
    path = Path(name)
    inside = (records / path).resolve().is_relative_to(records.resolve()) and ".." not in path.parts
    if path.is_absolute() or not path.parts or not inside:
        raise ValueError(f"keep: NAME={name!r} leaves {records}; allowed: a relative path below it")
    return records / path


def keep(source: str | Path, target: str | Path) -> list[Path]:
    """Replace ``target`` by the runs below ``source``, less logs and half-written files. Returns the copies.

    What was there stays until the copies are there whole. Raises FileNotFoundError when there is no run to keep, and
    ValueError when one cannot be kept, or when the target holds more than an earlier record.
    """
    source, target = Path(source), Path(target)
    found = [source] if any((source / name).exists() for name in WHOLE) else list(run_dirs(source))
    if not found:
        raise FileNotFoundError(f"no run.json in or below {source}")
    check_source(source, target, found)
    check_target(target)
    with replacing_folder(target) as fresh:
        for run in found:
            copy_run(run, fresh / run.relative_to(source))
    return [target / run.relative_to(source) for run in found]


def check_source(source: Path, target: Path, found: list[Path]) -> None:
    """Runs that are read here and have ended, in a folder apart from the target. Raises ValueError."""
    ours, theirs = source.resolve(), target.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise ValueError(f"keep: {source} and {target} are in each other; allowed: runs from elsewhere")
    for run in found:
        for path in (run / name for name in ("run.json", *WHOLE)):
            if path.exists():
                load_record(path)
        held = holder(run)
        if held:
            raise ValueError(f"keep: {run} is held by {held}; allowed: runs that have ended")


def check_target(target: Path) -> None:
    """Whether only files of one record would be replaced. Raises ValueError."""
    for path in target.rglob("*") if target.is_dir() else [target] * target.exists():
        inner = path.relative_to(target)
        if not path.is_dir() and not set(inner.parts) & set(KEPT):
            raise ValueError(f"keep: {path} is no file of a record, and would be lost; allowed: another NAME")
        if path.name in WHOLE and len(inner.parts) > 1:
            raise ValueError(f"keep: {path.parent} is a record of its own; allowed: another NAME")


def copy_run(run: Path, copy: Path) -> None:
    """The files of a run that are kept, compared with their originals. Raises OSError."""
    copy.mkdir(parents=True, exist_ok=True)
    for path in kept_files(run):
        there = copy / path.relative_to(run)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, there)
        if not filecmp.cmp(path, there, shallow=False):
            raise OSError(f"{path} changed while it was copied")


def kept_files(run: Path) -> Iterator[Path]:
    """The files of a run that are kept; pictures lie in `images`, or one folder deeper."""
    for name in KEPT:
        path = run / name
        inner = path.rglob("*") if path.is_dir() else [path]
        yield from (one for one in inner if one.is_file())
