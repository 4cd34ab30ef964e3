"""W&B gets the run; when it fails, the run does not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import wandb

from experiments import sinks
from tests.experiments.runs import config

RECORD = {"status": "ok", "reason": None, "startup_s": 0.4, "total_s": 2.0, "latency_s": {"median": 1.5}}


def test_failing_sink_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(wandb, "init", refuse)
    sinks.log(config("log.wandb.mode=online"), tmp_path, RECORD)
    assert capsys.readouterr().err == "warning: wandb: ConnectionError: no route\n"


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    sinks.log(config("log.wandb.mode=disabled"), tmp_path, RECORD)
    assert list(tmp_path.iterdir()) == []


def test_offline_keeps_the_ranks_under_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    pd.DataFrame({"rank": [0, 1], "param_bytes": [10, 20]}).to_csv(tmp_path / "ranks.csv", index=False)
    sinks.log(config("log.wandb.mode=offline"), tmp_path, RECORD)
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/table/ranks*.json"))
