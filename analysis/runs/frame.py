"""Tidy frames over any folder of run directories.

A run directory is any folder that holds a ``run.json``. Rows are runs, ranks or communications; nothing is
summed over ranks here. A run that failed or was skipped is a row with its reason, never a zero or a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.record import load_run
from analysis.records.rows import read_config, read_rows

# What makes two runs comparable: the same picture asked of the same model in the same way.
SAME_TASK = ["model", "seed", "steps", "guidance_scale", "scheduler", "px", "frames", "dtype", "prompts"]


def run_dirs(*folders: str | Path) -> Iterator[Path]:
    """Every run directory at or below the folders, in order of path within each."""
    for folder in folders:
        yield from sorted(path.parent for path in Path(folder).rglob("run.json"))


def runs(*folders: str | Path) -> pd.DataFrame:
    """One row per run. ``latency_s`` is the median of the timed repeats, ``repeats_s``, in seconds.

    ``degrees`` are those of all axes in words, ``product`` the same where others are shared than the method's own.
    """
    return pd.DataFrame([_run(path) for path in run_dirs(*folders)])


def ranks(*folders: str | Path) -> pd.DataFrame:
    """One row a rank of a run: bytes held, predicted and sent, seconds computing, waiting and idle."""
    return _stacked(folders, "ranks.csv", ["rank", "layers", "param_bytes", "kv_bytes", "sent_bytes"])


def repeats(*folders: str | Path) -> pd.DataFrame:
    """One row a timed repeat of a rank, in seconds."""
    return _stacked(folders, "ranks_repeats.csv", ["rank"])


def ledger(*folders: str | Path) -> pd.DataFrame:
    """One row a communication: who, when (seconds from the start of the image), how many bytes."""
    return _stacked(folders, "ledger.parquet", ["rank"])


def timeline(*folders: str | Path) -> pd.DataFrame:
    """One row a stretch of a rank's time: computing, or waiting for a communication; seconds as in `ledger`."""
    return _stacked(folders, "timeline.parquet", ["rank"])


def _stacked(folders: tuple[str | Path, ...], file: str, needed: list[str]) -> pd.DataFrame:
    frames = []
    for path in run_dirs(*folders):
        if (path / file).exists():
            rows = read_rows(path / file, needed)
            record = _run(path)
            for place, column in enumerate(["path", "run", "method", "devices", "degrees", "product"]):
                rows.insert(place, column, record[column])
            frames.append(rows)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _run(path: Path) -> dict[str, Any]:
    record = load_run(path)
    latency = record.get("latency_s") or {}
    own = record.get("method_config") or {}
    scheduler = record.get("scheduler") or {}
    hardware = record.get("hardware") or {}
    shared = parallel(path)
    own_axis_only = _name(record.get("method")) != "serial" and [*shared.values()] == [record.get("devices")]
    product = bool(shared) and not own_axis_only
    return {
        "run": path.name,
        "path": str(path),
        "status": record.get("status"),
        "reason": record.get("reason"),
        "world": record.get("world"),
        "model": _name(record.get("model")),
        "method": _name(record.get("method")),
        "devices": record.get("devices"),
        "degrees": in_words(shared) if shared else None,
        "product": in_words(shared) if product else None,
        "patches": own.get("patches"),
        "warmup": own.get("warmup"),
        "split": own.get("split"),
        "seed": _seed(record.get("seed")),
        "steps": record.get("steps"),
        "computed_steps": record.get("computed_steps"),
        "cache": own.get("cache"),
        "cache_threshold": own.get("cache_threshold"),
        "guidance_scale": record.get("guidance_scale"),
        "scheduler": scheduler.get("class") if isinstance(scheduler, dict) else scheduler,
        "px": _size(record),
        "frames": record.get("frames"),
        "dtype": record.get("dtype"),
        "prompts": tuple(record.get("prompts") or ()),
        "latency_s": latency.get("median"),
        "spread_s": latency.get("spread"),
        "repeats_s": tuple(latency.get("repeats") or ()),
        "startup_s": record.get("startup_s"),
        "total_s": record.get("total_s"),
        "threads": record.get("threads"),
        "gpu": hardware.get("gpu"),
        "cpu": hardware.get("cpu"),
        "cores": hardware.get("cores"),
        "git_commit": record.get("git_commit"),
        "created": record.get("created"),
    }


def parallel(run_dir: str | Path) -> dict[str, int]:
    """The degrees above 1 of a run, outermost axis first; none where its configuration has not recorded any.

    Raises OSError and ValueError.
    """
    folder = Path(run_dir)
    degrees = read_config(folder).get("parallel") if (folder / "config.yaml").exists() else None
    if not isinstance(degrees or {}, dict) or any(
        type(degree) is not int for degree in (degrees or {}).values()
    ):
        raise ValueError(f"{folder / 'config.yaml'} has parallel={degrees!r}; allowed: degrees by axis")
    return {str(axis): degree for axis, degree in (degrees or {}).items() if degree > 1}


def in_words(shared: Mapping[str, int]) -> str:
    """`cfg 2 x pipe 4`, as `Parallel` in `pipefusion/core/parallel.py` says it of itself."""
    return " x ".join(f"{axis} {degree}" for axis, degree in shared.items())


def _size(record: dict[str, Any]) -> str | None:
    """Pixels of the side, or height x width where they differ. Records of before had squares only."""
    height, width = (record.get(side, record.get("resolution")) for side in ("height", "width"))
    if height is None:
        return None
    return str(height) if height == width else f"{height} x {width}"


def _seed(seed: Any) -> Any:
    """The seed of a batch, or one a picture in words."""
    return ", ".join(map(str, seed)) if isinstance(seed, list) else seed


def _name(part: Any) -> Any:
    """A model or method is recorded by its name, or as a mapping that has one."""
    return part.get("name") if isinstance(part, dict) else part
