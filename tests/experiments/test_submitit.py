"""A sweep whose runs are jobs of a scheduler, each a process of its own: here by submitit's local executor."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiments.records import read_json
from tests.experiments.runs import QUICK, command

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
pytestmark = pytest.mark.slow
LOCAL = ["-m", *QUICK, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]


def said(folder: Path) -> list[str]:
    """First words of the lines that the jobs printed."""
    texts = [path.read_text() for path in folder.glob(".submitit/*/*.out")]
    return sorted(line.split(":")[0] for text in texts for line in text.splitlines() if "N=2: " in line)


def test_runs_are_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each starts its own ranks; the exit code is that of all, and the same command leaves alone what is done."""
    sweep = [*LOCAL, "devices=2", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]
    assert command(monkeypatch, *sweep) == 0
    records = [read_json(path) or {} for path in sorted(tmp_path.glob("*/run.json"))]
    assert [(record["status"], record["seed"]) for record in records] == [("ok", 0), ("ok", 1)]
    assert said(tmp_path) == ["ok", "ok"]
    assert command(monkeypatch, *sweep) == 0
    assert said(tmp_path) == ["had", "had", "ok", "ok"]


def test_tasks_of_a_job_are_its_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on several nodes: every task is one rank, and none is started besides."""
    tasks = [*LOCAL, "devices=2", "hydra.launcher.tasks_per_node=2", f"hydra.sweep.dir={tmp_path}"]
    assert command(monkeypatch, *tasks) == 0
    (ranks,) = [pd.read_csv(path) for path in tmp_path.glob("*/ranks.csv")]
    assert list(ranks.layers) == ["0-1", "2-3"]
    assert said(tmp_path) == ["ok"]  # the first rank alone speaks
