"""What a table or figure was made from: NAME.sources.json beside it, the same bytes every time.

Every file read is there with its sha256, under the JSON record it belongs to: the nearest one at or above it that says
which command made it. Published rows belong to none. Paths are below the results folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.output import Output, source_files

FACTS = ["command", "created", "git_commit", "predicted", "cluster", "hardware"]
"""Facts of a record, as far as they are in it."""


def write(output: Output, results: Path, made: Sequence[Path], place: Path | None = None) -> Path:
    """NAME.sources.json beside the first file that was made; `place` is the results folder of these files.

    The records are read below `results`: one may say more of itself than what an output reads.
    """
    path = sidecar(output, made)
    path.write_text(text(output, results, [one.relative_to(place or results) for one in made]))
    return path


def sidecar(output: Output, made: Sequence[Path]) -> Path:
    """Where the sources of these files stand."""
    return made[0].parent / f"{output.name}.sources.json"


def text(output: Output, results: Path, made: Sequence[Path]) -> str:
    """The content of a sidecar: what it is about, how it is made again, and from what. `made` is below `results`."""
    content = {
        "name": output.name,
        "paper": output.paper,
        "caption": output.caption,
        "command": f"python -m analysis {output.name}",
        "made": [path.as_posix() for path in made],
        "commands_of_records": list(output.commands),
        "records": output_records(output, results),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def output_records(output: Output, results: Path) -> list[dict[str, Any]]:
    """Every record of an output: what it says of itself, and the sha256 of each of its files that is read."""
    owners: dict[Path, Path | None] = {}
    records: dict[Path | None, dict[str, Any]] = {}
    for path in source_files(output, results):
        if path.parent not in owners:
            owners[path.parent] = nearest(path.parent, results)
        record = path if is_record(path) else owners[path.parent]
        if record not in records:
            name = {"record": record and record.relative_to(results).as_posix()}
            records[record] = name | (record_facts(record) if record else {}) | {"files": {}}
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        records[record]["files"][path.relative_to(results).as_posix()] = digest
    return list(records.values())


def nearest(folder: Path, results: Path) -> Path | None:
    """The JSON record that what is in a folder belongs to: in it, or in one above it below `results/records`."""
    while (results / "records") in folder.parents:
        candidates = [folder / "run.json", *sorted(folder.glob("*.json"))]
        found = next((path for path in candidates if is_record(path)), None)
        if found:
            return found
        folder = folder.parent
    return None


def is_record(path: Path) -> bool:
    """Whether a file is JSON that says which command made it."""
    return path.suffix == ".json" and path.is_file() and "command" in _content(path)


def record_facts(record: Path) -> dict[str, Any]:
    """Command, time, commit, hardware and the version of torch, as far as the record says."""
    content = _content(record)
    facts = {key: content[key] for key in FACTS if content.get(key) is not None}
    torch = (content.get("versions") or {}).get("torch")
    return facts | ({"torch": torch} if torch else {})


def _content(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    return content if isinstance(content, dict) else {}
