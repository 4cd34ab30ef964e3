"""The files of a run directory: written whole or not at all, merged from what each rank wrote, read back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
DONE = ("ok", "skipped")
"""Statuses that a resumed sweep does not run again; `oom`, `failed`, `interrupted` and `running` it does."""

TENSORS = ("inputs.safetensors", "latents.safetensors")
TABLES = ("ranks.csv", "ranks_repeats.csv", "ledger.parquet", "timeline.parquet")
OWN = ("config.yaml", "run.json", *TENSORS, *TABLES, "images", "logs", "wandb")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well, and is removed when it does not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(content, indent=1, default=str) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file, or None where there is none or only a broken one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def clean(run_dir: Path) -> None:
    """Remove what an earlier run left in `run_dir`, half-written files included; nothing else that lies there."""
    for path in [*(run_dir / name for name in OWN), *rank_files(run_dir)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def rank_files(run_dir: Path) -> list[Path]:
    """What only the run itself needed: parts to merge, progress, and files that were never finished."""
    return [
        path for pattern in (".rank-*", ".progress.json", "*.tmp", ".*.tmp") for path in run_dir.glob(pattern)
    ]


def finished(run_dir: Path, config: str) -> dict[str, Any] | None:
    """The record of a run that need not be run again: it is done, and was made by this very configuration."""
    record = read_json(run_dir / "run.json")
    if record is None or record.get("status") not in DONE:
        return None
    stored = run_dir / "config.yaml"
    return record if stored.is_file() and stored.read_text(encoding="utf-8") == config else None


def merge_ranks(run_dir: Path, devices: int) -> list[dict[str, Any]]:
    """Merge `.rank-{r}.json` to ranks.csv and ranks_repeats.csv, ledgers and timelines to one table
    each; one dict a rank.

    Raises FileNotFoundError if a rank left no file.
    """
    import pandas as pd

    reports = [json.loads((run_dir / f".rank-{rank}.json").read_text()) for rank in range(devices)]
    write_csv(run_dir / "ranks.csv", pd.DataFrame([report["row"] for report in reports]))
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


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table whole."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False)


def latency(repeats: list[float]) -> dict[str, Any]:
    """Every repeat in seconds, their median, and their spread (largest less smallest)."""
    return {"repeats": repeats, "median": median(repeats), "spread": max(repeats) - min(repeats)}


@lru_cache(maxsize=8)
def sha256_of(folder: Path) -> str:
    """SHA-256 over the safetensors files of a folder, in the order of their names."""
    digest = sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def git_commit(folder: Path) -> str | None:
    """The commit the code is at, with `-dirty` if tracked files differ; None outside a git checkout.

    A copy without its repository (in a container, say) is told by the environment: PIPEFUSION_LAB_COMMIT.
    """
    told = os.environ.get("PIPEFUSION_LAB_COMMIT")
    if told:
        return told
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--match=-"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
