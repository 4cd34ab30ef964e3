"""Why a configuration cannot run: the answer of every check of a method."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Why a method cannot run a configuration: the key at fault and one sentence with what is allowed."""

    key: str
    message: str
