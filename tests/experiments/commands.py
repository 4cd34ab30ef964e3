"""Helpers of the tests that start runs."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from experiments.command import cli
from experiments.command.compose import Plan, plan
from experiments.config import RunConfig, from_hydra
from experiments.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
QUICK = [
    "model=pixart_tiny",
    "log.wandb.mode=disabled",
    "steps=2",
    "measure.repeats=1",
    "measure.warmup_runs=0",
]


def composed(*overrides: str) -> RunConfig:
    """The configuration that a command composes, or the first of a sweep's."""
    return from_hydra(planned(*overrides).jobs[0])


@cache
def planned(*overrides: str) -> Plan:
    """What a command composes, to be read only: Hydra takes a third of a second a run."""
    return plan([*overrides])


def config(*overrides: str) -> RunConfig:
    """The configuration of one quick run."""
    given = {override.split("=")[0] for override in overrides}
    quick = [override for override in QUICK if override.split("=")[0] not in given]
    return composed(*quick, *overrides)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`python run.py ARGUMENTS` in this process, which has everything imported and a fork server running."""
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    return cli.main(list(arguments))


def complaint(overrides: list[str], multirun: bool = False) -> str:
    """The one line with which a command is refused."""
    with pytest.raises(ConfigError) as caught:
        cli.check(plan(overrides, multirun), overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def end_with_parent() -> None:
    """Have Linux kill this process when the one that started it is gone, however that ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """`python run.py ARGUMENTS` as a process of its own, which ends with this one."""
    return subprocess.Popen(
        [sys.executable, "run.py", *arguments],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=end_with_parent, **options,
    )  # fmt: skip


def rank_pids(run_dir: Path) -> list[int]:
    """Process ids that the ranks of `fake_rank` wrote down."""
    return [int(path.read_text() or 0) for path in sorted(run_dir.glob("pid-*"))]


def alive(pid: int) -> bool:
    """Whether a process is there and not only waiting to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def session(leader: int) -> list[str]:
    """The processes of a session that have not ended, as `ps` shows them."""
    lines = subprocess.run(
        ["ps", "-eo", "sid=,stat=,pid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in lines.splitlines()]
    return [row[2] for row in rows if row[0] == str(leader) and not row[1].startswith("Z")]


def wait_until(condition: Any, seconds: float = 600.0) -> None:
    """Poll until `condition()` holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"still not so after {seconds} s")
        time.sleep(0.05)
