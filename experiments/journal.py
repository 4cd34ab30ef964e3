"""Rows of finished cells, written as they come: what a study that was killed has, and need not measure again."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

Row = dict[str, Any]
CELLS = "cells"
"""The folder of a study's journal."""


class Journal:
    """One file per process in a folder, one line per cell: its key and its rows."""

    def __init__(self, folder: Path):
        self.folder = folder

    def append(self, key: str, rows: list[Row]) -> None:
        """Write a cell's rows; on the disk when this returns. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, "rows": rows}, default=plain) + "\n"
        with (self.folder / f"{socket.gethostname()}-{os.getpid()}.jsonl").open(
            "a", encoding="utf-8"
        ) as stream:
            stream.write(line)

    def read(self) -> dict[str, list[Row]]:
        """The rows of every cell by key, the latest of each; a line that was cut off by a kill is no cell."""
        found: dict[str, list[Row]] = {}
        for path in sorted(self.folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
                if line.endswith("\n"):
                    cell = json.loads(line)
                    found[cell["key"]] = cell["rows"]
        return found

    def __len__(self) -> int:
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob("*.jsonl"))


def plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's."""
    return value.item() if hasattr(value, "item") else str(value)
