"""The files of a run directory: written whole or not at all, merged from what each rank wrote, read back."""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from analysis.records.files import read_json as any_json
from analysis.records.files import replacing, write_text
from analysis.records.record import MANIFEST

if TYPE_CHECKING:
    import pandas as pd

DONE = ("ok", "skipped")
"""Statuses that a resumed sweep does not run again; `oom`, `failed`, `interrupted` and `died` it does."""

TENSORS = ("inputs.safetensors", "latents.safetensors")
TABLES = ("ranks.csv", "ranks_repeats.csv", "ledger.parquet", "timeline.parquet")
DRAWN = ("timeline.png", "timeline.svg", "trace.json")
FILES = ("run.json", "config.yaml", *TENSORS, *TABLES, "images", "logs", *DRAWN)
"""What a run writes into its directory, or is drawn of it there; wandb/ besides, a folder to each run of W&B."""


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(content, indent=1, default=str) + "\n")


def write_last(path: Path, content: Any) -> None:
    """Write a JSON file; on a full disk into the room of the one that is there, which is not lost if it has too little.

    Raises OSError.
    """
    try:
        write_json(path, content)
    except OSError:
        text = json.dumps(content, separators=(",", ":"), default=str).encode()
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, len(text))  # raises before anything is overwritten
            stream.write(text)
            stream.truncate()


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file, or None where there is none or only a broken one."""
    try:
        content = any_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def rank_files(run_dir: Path) -> list[Path]:
    """What only the run itself needed: parts to merge, progress, and files that were never finished."""
    parts = r"\.rank-\d+(\.ledger|\.timeline)?\.(json|parquet)|\.progress\.json"
    whole = "|".join(map(re.escape, (*FILES, MANIFEST)))
    ours = re.compile(rf"{parts}|\.({whole}|{parts})\.\d+\.tmp")
    return [path for path in run_dir.glob(".*") if ours.fullmatch(path.name)]


def finished(run_dir: Path, key: str) -> dict[str, Any] | None:
    """The record of a run that need not be run again: it is done, and was made of all that `key` stands for."""
    record = read_json(run_dir / "run.json") or {}
    return record if record.get("status") in DONE and record.get("key") == key else None


def merge_ranks(run_dir: Path, devices: int) -> list[dict[str, Any]]:
    """Merge `.rank-{r}.json` to ranks.csv and ranks_repeats.csv, ledgers and timelines to one table
    each; one dict a rank. The seconds in ranks.csv are those of the repeat whose latency is the median.

    Raises FileNotFoundError if a rank left no file.
    """
    import pandas as pd

    reports = [json.loads((run_dir / f".rank-{rank}.json").read_text()) for rank in range(devices)]
    middle = middle_repeat([repeat["latency_s"] for repeat in reports[0]["repeats"]])
    write_csv(run_dir / "ranks.csv", pd.DataFrame([one["row"] | one["repeats"][middle] for one in reports]))
    repeats = [
        {"rank": r, "repeat": i, **row}
        for r, report in enumerate(reports)
        for i, row in enumerate(report["repeats"])
    ]
    write_csv(run_dir / "ranks_repeats.csv", pd.DataFrame(repeats))
    for name in ("ledger", "timeline"):
        paths = [run_dir / f".rank-{rank}.{name}.parquet" for rank in range(devices)]
        if all(path.exists() for path in paths):
            with replacing(run_dir / f"{name}.parquet") as temporary:
                pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True).to_parquet(temporary)
    return reports


def middle_repeat(seconds: list[float]) -> int:
    """The repeat whose seconds are the median, or the lower of the two in the middle."""
    return sorted(range(len(seconds)), key=seconds.__getitem__)[(len(seconds) - 1) // 2]


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table whole."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False)


def latency(repeats: list[float]) -> dict[str, Any]:
    """Every repeat in seconds, their median, and their spread (largest less smallest)."""
    return {"repeats": repeats, "median": median(repeats), "spread": max(repeats) - min(repeats)}


def display(path: Path) -> str:
    """A path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@lru_cache(maxsize=1)
def git_commit(folder: Path) -> str | None:
    """The commit the code is at, with `-dirty` if tracked files differ; None outside a git checkout.

    A copy without its repository (in a container, for one) has it from the environment: PIPEFUSION_LAB_COMMIT.
    """
    given = os.environ.get("PIPEFUSION_LAB_COMMIT")
    if given:
        return given
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--match=-"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
