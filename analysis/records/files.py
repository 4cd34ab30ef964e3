"""Files and folders that are there whole or not at all: what they replace stays until they are."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 256 << 20
"""More text than any configuration, index or record holds."""
MOST_LEVELS = 100
"""More mappings and lists within each other than any configuration has."""


def require_file(path: Path) -> None:
    """Raises OSError unless a path is a regular file: reading a pipe or a device may never end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        why = os.strerror(number) if stat.S_ISDIR(mode) else "Not a regular file"
        raise OSError(number, why, str(path))


def read_text(path: Path) -> str:
    """The text of a regular file, without a byte order mark. Raises OSError, and ValueError if it is no UTF-8."""
    require_file(path)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES >> 20} MiB")
    return path.read_text(encoding="utf-8-sig")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises OSError and ValueError, also for one that is nested without end."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises OSError and ValueError, also for one that is nested without end."""
    text = read_text(path)
    try:
        depth = 0  # libyaml builds nodes by recursion in C, which ends the process where Python would raise
        for event in yaml.parse(text, yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_LEVELS:
                raise ValueError(f"{path} is nested too deeply")
        return yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not whole ({error})") from None


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


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that takes its place when the block ends well, and is removed when it does not."""
    path = path.resolve()
    fresh, old = (path.with_name(f".{path.name}.{os.getpid()}.{part}") for part in ("new", "old"))
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if path.exists():
            path.rename(old)
        try:
            fresh.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
