"""A configuration that cannot be run: the error, and the checks that every measure needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from analysis.presentation.line import one_line
from pipefusion.core.domain import outside

CONF = Path(__file__).resolve().parents[1] / "conf"
"""Hydra's groups: the files of configurations."""


class ConfigError(ValueError):
    """A configuration that cannot be run: the key at fault (or none), and a message that begins with its value."""

    def __init__(self, key: str, message: str):
        self.key = one_line(key)
        self.message = one_line(message)
        super().__init__(f"{self.key}={self.message}" if key else self.message)


def refuse(error: ConfigError) -> int:
    """Say what is wrong with the configuration, under torchrun once a node; the exit code."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"error: {error}", file=sys.stderr, flush=True)
    return 2


class RunFailed(Exception):
    """A run that did not end well: `status` is failed, oom or interrupted, the text one line with the cause."""

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status = status
        self.reason = reason


def nearest(name: str, valid: Iterable[str]) -> str:
    """`, nearest: X` if a valid name is like `name`, else nothing."""
    near = get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f", nearest: {near[0]}" if near else ""


def check_domains(cfg: Any) -> None:
    """Numbers outside the domains that their fields state, and empty grids. Raises ConfigError."""
    for key, message in outside(cfg):
        raise ConfigError(key, message)


def check_known(cfg: Any, allowed: Mapping[str, Collection[str]]) -> None:
    """Names that do not exist, alone or in lists. Raises ConfigError."""
    for key, names in allowed.items():
        for value in lookup_values(cfg, key):
            if value not in names:
                text = f"{value!r} is unknown{nearest(str(value), names)}; allowed: {', '.join(names)}"
                raise ConfigError(key, text)


def check_folder(folder: Path, known: Collection[str], key: str) -> None:
    """Whether a folder that will be replaced holds more than these files. Raises ConfigError."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(key, f"{folder} is a file; allowed: a folder")
    lost = sorted(path.name for path in folder.iterdir() if path.name not in known) if folder.exists() else []
    if lost:
        raise ConfigError(
            key, f"{folder} holds {lost[0]}, which would be lost; allowed: a new or empty folder"
        )


def lookup_values(cfg: Any, key: str) -> list[Any]:
    """The values of a list, or the one of another key."""
    value = lookup(cfg, key)
    return value if isinstance(value, list) else [value]


def config_names(group: str) -> list[str]:
    """The configurations of a group: the files of `conf/GROUP`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def lookup(cfg: Any, key: str) -> Any:
    """The value of a dotted key of nested dataclasses; a number is a place in a list."""
    for part in key.split("."):
        cfg = cfg[int(part)] if isinstance(cfg, list) else getattr(cfg, part)
    return cfg


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, as a terminal may be given it."""
    return one_line((str(error).strip() or type(error).__name__).splitlines()[0])


def short_reason(error: BaseException) -> str:
    """The type of an exception and the first line of its text."""
    return f"{type(error).__name__}: {first_line(error)}"
