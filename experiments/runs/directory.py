"""Run directories: taken by one process at a time, and rid of what earlier runs wrote there and of nothing else.

manifest.json says what the project wrote: `files`, or null while a run goes on and after one that was killed, when all
that lies below its names (`writes`) is the run's, since nothing lay there before.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from analysis.records.record import LOCK, MANIFEST, SCHEMA, newer, owner
from experiments.errors import ConfigError
from experiments.records import rank_files, read_json, write_json

ALLOWED = "allowed: a new or empty directory, or one of an earlier run"
READERS_S = 0.1
"""Who looks whether a directory is held holds it for a moment."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Held(Exception):
    """Another process has the directory; the text says which one, and since when."""


@contextmanager
def taken(folder: Path, wait: bool = False) -> Iterator[None]:
    """Have a directory alone until the block ends; the system frees it when this process dies.

    Under torchrun rank 0 takes it for all. Raises Held, or with `wait` waits for the other process; OSError.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor = lock(path, wait)
    try:
        who = {"pid": os.getpid(), "host": socket.gethostname(), "command": shlex.join(sys.argv)}
        who["since"] = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(who).encode())
        yield
    finally:
        if is_at(descriptor, path):
            path.unlink()
        os.close(descriptor)


def lock(path: Path, wait: bool) -> int:
    """The descriptor of a lock file that this process has locked. Raises Held."""
    until = time.monotonic() + READERS_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            if time.monotonic() > until:
                raise Held(f"{path.parent} is held by {owner(path.parent) or 'another process'}") from None
            time.sleep(READERS_S / 10)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            text = f"warning: {path.parent} cannot be locked ({error.strerror}): two runs in it would mix"
            print(text, file=sys.stderr, flush=True)
            return descriptor
        else:
            if is_at(descriptor, path):  # and not one that its holder has removed meanwhile
                return descriptor
        os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that a path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def problem(folder: Path, measure: str, writes: Sequence[str]) -> str | None:
    """Why a run of this measure, which writes files or folders of these names, may not be written into a directory."""
    if folder.exists() and not folder.is_dir():
        return f"{folder} is a file; {ALLOWED}"
    for name in (MANIFEST, *writes):
        text = newer(read_json(folder / name) or {}) if name.endswith(".json") else None
        if text:
            return f"{folder / name} {text}"
    there = {*files_in(folder, writes)}
    # After the files: a run that goes on meanwhile has noted them.
    manifest = read_json(folder / MANIFEST) or {}
    if {"measure", "writes", "files"} <= manifest.keys():
        if manifest["measure"] != measure:
            return f"{folder} holds a run of measure={manifest['measure']}; allowed: another directory"
        known = there if manifest["files"] is None else {*manifest["files"]}
    else:
        known = there if made_before_manifests(folder, writes) else set()
        there = there | ({MANIFEST} if (folder / MANIFEST).exists() else set())
    foreign = min(there - known, default=None)
    return foreign and f"{folder} holds {foreign}, which no run of this project wrote; {ALLOWED}"


def made_before_manifests(folder: Path, writes: Sequence[str]) -> bool:
    """Whether a directory has a record of this project, which says how and when it was made."""
    records = [read_json(folder / name) or {} for name in writes if name.endswith(".json")]
    return any({"git_commit", "created"} <= record.keys() for record in records)


def files_in(folder: Path, writes: Sequence[str]) -> Iterator[str]:
    """The files of these names, and those in folders of these names, relative to the directory. Links are files."""
    for path in (folder / name for name in writes):
        if path.is_dir() and not path.is_symlink():
            for at, folders, files in os.walk(path):
                links = [name for name in folders if (Path(at) / name).is_symlink()]
                yield from (
                    (Path(at) / name).relative_to(folder).as_posix() for name in sorted(links + files)
                )
        elif os.path.lexists(path):
            yield path.name


def check(folder: Path, measure: str, writes: Sequence[str], key: str = "hydra.run.dir") -> None:
    """Raises ConfigError of `key` if a run may not be written into a directory."""
    text = problem(folder, measure, writes)
    if text:
        raise ConfigError(key, text)


def clear(folder: Path, measure: str, writes: Sequence[str]) -> None:
    """Make a directory, or remove what an earlier run left there. Raises ConfigError if that is not all there is."""
    check(folder, measure, writes)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / name for name in writes):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in rank_files(folder):
        path.unlink(missing_ok=True)


def claim(folder: Path, measure: str, writes: Sequence[str]) -> None:
    """Note that from now on all that lies below these names is the run's."""
    note(folder, measure, writes, None)


def settle(folder: Path, measure: str, writes: Sequence[str]) -> None:
    """Note what a run has written, if anything: what comes to lie there later is not the run's."""
    files = [*files_in(folder, writes)]
    if files:
        note(folder, measure, writes, files)
    else:
        (folder / MANIFEST).unlink(missing_ok=True)


def note(folder: Path, measure: str, writes: Sequence[str], files: list[str] | None) -> None:
    """Write the manifest. Raises OSError."""
    content = {"schema": SCHEMA, "measure": measure, "writes": [*writes], "files": files}
    write_json(folder / MANIFEST, content)
