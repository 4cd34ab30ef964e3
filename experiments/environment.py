"""How and on what a run was made: command, commit, versions, hardware. Nothing here initialises CUDA."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.config import CONF
from experiments.records import git_commit

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pandas", "hydra-core", "safetensors")


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Python and the packages that numbers can depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def provenance(gpu: str | None = None) -> dict[str, Any]:
    """How a record was made: when, by which command and commit, with what, on what; `gpu` as in `hardware`."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "git_commit": git_commit(CONF.parent),
        "versions": versions(),
        "hardware": hardware(gpu),
    }


def hardware(gpu: str | None = None) -> dict[str, Any]:
    """The host. `gpu` is what a rank found: asking here would make a CUDA context in a process without use for it."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": gpu,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": f"{platform.system()} {platform.release()}",
    }


def cpu_name() -> str:
    """The processor's name as Linux reports it, elsewhere Python's."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
