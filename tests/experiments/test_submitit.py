"""A sweep whose runs are jobs of a scheduler, each a process of its own: here by submitit's local executor."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.records.study import load_study
from experiments.records import read_json
from experiments.submit import dealt
from tests.experiments.commands import QUICK, command

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
pytestmark = pytest.mark.slow
LOCAL = ["-m", *QUICK, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]


def statuses(folder: Path) -> list[str]:
    """First words of the lines that the jobs printed."""
    texts = [path.read_text() for path in folder.glob(".submitit/*/*.out")]
    return sorted(line.split(":")[0] for text in texts for line in text.splitlines() if "N=2: " in line)


def test_runs_are_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each starts its own ranks; the exit code is that of all, and the same command leaves alone what is done."""
    sweep = [*LOCAL, "devices=2", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]
    assert command(monkeypatch, *sweep) == 0
    records = [read_json(path) or {} for path in sorted(tmp_path.glob("*/run.json"))]
    assert [(record["status"], record["seed"]) for record in records] == [("ok", 0), ("ok", 1)]
    assert statuses(tmp_path) == ["ok", "ok"]
    assert command(monkeypatch, *sweep) == 0
    assert statuses(tmp_path) == ["had", "had", "ok", "ok"]


def test_tasks_of_a_job_are_its_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on several nodes: every task is one rank, and none is started besides."""
    tasks = [*LOCAL, "devices=2", "hydra.launcher.tasks_per_node=2", f"hydra.sweep.dir={tmp_path}"]
    assert command(monkeypatch, *tasks) == 0
    (ranks,) = [pd.read_csv(path) for path in tmp_path.glob("*/ranks.csv")]
    assert list(ranks.layers) == ["0-1", "2-3"]
    assert statuses(tmp_path) == ["ok"]  # the first rank alone speaks


def test_cells_of_a_study_are_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their rows come into the one journal; what is done is submitted no more, what a killed job left undone is."""
    study = [
        *("measure=scaling", "cluster=l40_pcie", "model=pixart_tiny", "steps=2", "log.wandb.mode=disabled"),
        *("measure.methods=[serial,pipefusion]", "measure.resolutions=[32,64]", "measure.devices=[2]"),
        *("hydra/launcher=submitit_local", f"hydra.run.dir={tmp_path}"),
    ]
    assert command(monkeypatch, *study, "measure.patches=[2]") == 0
    assert [*load_study(tmp_path).rows.status] == ["ok"] * 4
    jobs = {path.name for path in (tmp_path / "logs").iterdir()}
    assert jobs and not (tmp_path / "cells").exists()
    assert command(monkeypatch, *study, "measure.patches=[2]") == 0
    assert "4 of 4 cells are done already" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "logs").iterdir()} == jobs


def test_one_run_is_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert command(monkeypatch, *QUICK, *LOCAL[-2:], f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert (
        "hydra/launcher=submitit_local runs a sweep, or a study's cells; allowed: " in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_groups_are_dealt_whole() -> None:
    assert dealt(["ab", "c", "de"], 2) == [["a", "b", "d", "e"], ["c"]]
    assert dealt(["ab"], 9) == [["a", "b"]] and dealt([], 3) == []
