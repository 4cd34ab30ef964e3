"""What ranks are forked from where there is a GPU: a process that has never asked for one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.runs import agent, server
from experiments.runs.agent import PRELOAD, PRELOAD_CPU, cause, prepare
from pipefusion.core.mesh import Mesh
from tests.experiments.commands import ROOT

PROBE = """
import importlib, sys, traceback
import torch

asked = []
def recorded(name):
    def ask(*args, **kwargs):
        asked.append(name)
        return False
    return ask
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "get_device_capability"):
    setattr(torch.cuda, name, recorded(f"torch.cuda.{name}"))
for name in ("is_available", "device_count", "current_accelerator", "current_device_index"):
    setattr(torch.accelerator, name, recorded(f"torch.accelerator.{name}"))
for module in sys.argv[1:]:
    importlib.import_module(module)
print(*asked)
"""


def asked_by(modules: list[str]) -> list[str]:
    """What is asked of the GPU while these modules are imported by a new process."""
    command = [sys.executable, "-c", PROBE, *modules]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.slow
def test_what_is_preloaded_for_gpus_never_asks_for_one() -> None:
    assert asked_by(PRELOAD) == []
    assert asked_by(PRELOAD_CPU) != []  # diffusers does: were it preloaded, no rank could use a GPU


@pytest.mark.parametrize("there", [True, False])
def test_the_list_is_chosen_by_whether_there_is_a_gpu(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[list[str]] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    monkeypatch.setattr("multiprocessing.set_forkserver_preload", chosen.append)
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", lambda: None)
    prepare()
    assert chosen == [[server.ORPHAN, *(PRELOAD if there else PRELOAD_CPU)]]


@pytest.mark.parametrize(
    ("exitcode", "message", "reason"),
    [
        (-9, "", " was killed by SIGKILL"),
        (3, "", " exited with code 3"),
        (1, {"message": "Oops: no"}, ": Oops: no"),
    ],
)
def test_a_rank_of_a_product_is_named_with_its_place(
    exitcode: int, message: str | dict[str, str], reason: str, tmp_path: Path
) -> None:
    failure = SimpleNamespace(exitcode=exitcode, message=message, signal_name=lambda: "SIGKILL")
    error = SimpleNamespace(get_first_failure=lambda: (5, failure))
    assert (
        cause(error, tmp_path, Mesh({"cfg": 2, "pipe": 3}), {5}, {}).reason
        == f"rank 5 (cfg 1, pipe 2){reason}"
    )
    assert cause(error, tmp_path, Mesh({"pipe": 6}), {5}, {}).reason == f"rank 5{reason}"


def test_what_sigterm_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "GRACE_S", 0.0)
    monkeypatch.setattr(agent, "STOP_S", 0.0)
    logs = [tmp_path / "run" / "attempt_0" / str(rank) for rank in range(2)]
    for folder in logs:
        folder.mkdir(parents=True)
    (logs[0] / "error.json").touch()
    with subprocess.Popen(["sleep", "600"]) as stopped:
        stopped.send_signal(signal.SIGSTOP)
        (logs[1] / agent.PID).write_text(str(stopped.pid))
        agent.kill_stopped(tmp_path, threading.Event())
    assert stopped.returncode == -signal.SIGKILL
