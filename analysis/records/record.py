"""Reading a record: refused when a newer version of this project wrote it, and never `running` when nobody runs it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis.records.files import read_json, write_text

SCHEMA = 1
"""Of the records that this version writes, and the newest that it reads."""
LOCK = ".lock"
"""The file of a run directory that its process holds locked (flock), and that says which process that is."""
RECORD, ROWS = "record.json", "rows.parquet"
"""The files of a study: what it says of itself, and its rows."""
MANIFEST = "manifest.json"
"""The file of a run directory that lists what the project wrote there, and what may be removed again."""


TYPES: dict[str, tuple[type, ...]] = {
    "status": (str,), "world": (str,), "cluster": (str,), "git_commit": (str,), "created": (str,), "dtype": (str,),
    "model": (str, dict), "method": (str, dict), "scheduler": (str, dict), "method_config": (dict,),
    "hardware": (dict,), "latency_s": (dict,), "prompts": (list,), "seed": (int, list), "devices": (int,),
    "steps": (int,), "height": (int,), "width": (int,), "resolution": (int,), "guidance_scale": (int, float),
    "computed_steps": (int, float),
}  # fmt: skip
"""What the record of a run may have under its keys, if not null."""
METHOD_TYPES: dict[str, tuple[type, ...]] = {
    "patches": (int,),
    "warmup": (int,),
    "split": (str, list),
    "text": (str,),
    "cache": (str,),
    "cache_threshold": (int, float),
}
"""And under those of its `method_config`."""


MOST = 1 << 63


def check_types(record: dict[str, Any], path: Path) -> None:
    """Raises ValueError for what no run of this project has recorded."""
    if not record.keys() & {"status", "method"}:
        raise ValueError(f"{path} is of no run of this project; allowed: what run.py wrote")
    nested = "method_config"
    checked = [(key, record.get(key), types) for key, types in TYPES.items()]
    own = record.get(nested) or {}
    checked += [
        (f"{nested}.{key}", own.get(key), types) for key, types in METHOD_TYPES.items() if type(own) is dict
    ]
    for key, value, types in checked:
        if value is None or (type(value) in types and plain(value)):
            continue
        names = ", ".join(kind.__name__ for kind in types)
        raise ValueError(f"{path} has {key}={value!r}, as no run records it; allowed: {names}")


def plain(value: Any) -> bool:
    """Whether a text has no control characters, and a number is one that tables hold."""
    if isinstance(value, str):
        return value.isprintable()
    return not isinstance(value, int | float) or -MOST < value < MOST


def load_record(path: Path) -> dict[str, Any]:
    """The content of a JSON record. Raises OSError, and ValueError when it is broken or of a newer schema."""
    try:
        content = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not whole ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no record; allowed: a mapping")
    problem = newer(content)
    if problem:
        raise ValueError(f"{path} {problem}")
    return content


def newer(record: dict[str, Any]) -> str | None:
    """Why a record cannot be read here; None if it can. The first records had no schema."""
    schema = record.get("schema", SCHEMA)
    if isinstance(schema, int) and schema <= SCHEMA:
        return None
    return f"has schema {schema}, and this version reads up to {SCHEMA}; allowed: a newer PipeFusion Lab"


def load_run(folder: Path) -> dict[str, Any]:
    """run.json of a run directory; one that says `running` though no process holds the directory says `died`.

    Raises OSError, and ValueError where it is broken or no record of a run.
    """
    record = load_record(folder / "run.json")
    check_types(record, folder / "run.json")
    if record.get("status") != "running" or holder(folder) is not None:
        return record
    record = load_record(folder / "run.json")  # again: it may have ended in between
    if record.get("status") == "running":
        who = owner(folder)
        record |= {"status": "died", "reason": f"ended without a word{f': {who}' if who else ''}"}
    return record


def note_files(folder: Path, files: Iterable[Path]) -> None:
    """Add what was made of a run, in its directory, to its manifest: it goes when another run takes the directory."""
    path = folder / MANIFEST
    if path.exists():
        manifest = load_record(path)
        if manifest["files"] is not None:
            manifest["files"] = sorted({*manifest["files"], *(file.name for file in files)})
            write_text(path, json.dumps(manifest, indent=1) + "\n")


def holder(folder: Path) -> str | None:
    """The process that holds a directory, in words; None when nobody does: the system frees what a dead one held."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except OSError:  # held, or on a file system that cannot say
        return owner(folder) or "another process"
    return None


def owner(folder: Path) -> str | None:
    """What the lock of a directory says of the process that took it last."""
    try:
        lock = read_json(folder / LOCK)
        return f"process {lock['pid']} on {lock['host']} since {lock['since']} ({lock['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return None
