"""W&B gets the run and the study; when it fails, neither does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from analysis.presentation.columns import typed
from experiments import sinks
from experiments.command.measures import MEASURES
from experiments.config import RunConfig
from experiments.sinks import Summary
from tests.experiments.commands import command, config

RECORD = {
    "git_commit": "abc",
    "hardware": {"cpu": "a CPU", "gpu": None},
    "status": "ok",
    "reason": None,
    "startup_s": 0.4,
    "total_s": 2.0,
    "latency_s": {"median": 1.5},
}
FRECHET = {"metric": "frechet_distance", "against": "real", "network": "lite0", "value": 2.5, "n": 8}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    pd.DataFrame({"rank": [0, 1], "param_bytes": [10, 20]}).to_csv(tmp_path / "ranks.csv", index=False)
    return tmp_path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study with two settings, the second sampled as the first; pictures of a third are left from an earlier one."""
    for key in ("a", "old"):
        (tmp_path / "images" / key).mkdir(parents=True)
        for k in (0, 2, 10):
            Image.new("RGB", (4, 4), (k, 0, 0)).save(tmp_path / "images" / key / f"{k}.png")
    rows = [{"setting": "a", **FRECHET, "values": [1.0]}, {"setting": "b", **FRECHET, "value": None}]
    typed(pd.DataFrame(rows).assign(what=None)).to_parquet(tmp_path / "rows.parquet")
    settings = [{"key": "a", "study": ["main"], "at": {"W": 1}}, {"key": "b", "study": None, "at": None}]
    (tmp_path / "record.json").write_text(
        json.dumps({"created": "today", "settings": settings, "latency": []})
    )
    pd.DataFrame({"step": [0, 1], "error": [0.5, 0.25]}).to_csv(tmp_path / "steps.csv", index=False)
    return tmp_path


def test_failing_sink_is_one_line(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("wandb.init", refuse)
    cfg = config("log.wandb.mode=online")
    sinks.log(cfg, run_dir, lambda: sinks.run_summary(cfg, run_dir, RECORD))
    assert capsys.readouterr().err == "warning: wandb: ConnectionError: no route\n"


def test_disabled_reads_and_writes_nothing(tmp_path: Path) -> None:
    cfg = config("log.wandb.mode=disabled")
    sinks.log(cfg, tmp_path, lambda: sinks.run_summary(cfg, tmp_path, RECORD))
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_compared_by_what_its_fullest_rank_holds(run_dir: Path) -> None:
    summary = sinks.run_summary(config(), run_dir, RECORD, "a sweep")
    assert summary.numbers.items() >= {"git_commit": "abc", "hardware": "a CPU", "param_bytes": 20}.items()
    assert summary.group == "a sweep" and "kv_bytes" not in summary.numbers


@pytest.mark.slow
def test_offline_keeps_the_ranks_under_the_run(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    cfg = config("log.wandb.mode=offline")
    sinks.log(cfg, run_dir, lambda: sinks.run_summary(cfg, run_dir, RECORD))
    assert list(run_dir.glob("wandb/offline-run-*/run-*.wandb"))
    assert list(run_dir.glob("wandb/offline-run-*/files/media/table/ranks*.json"))


def test_the_summary_of_a_study_has_its_tables_numbers_and_pictures(study: Path) -> None:
    found = sinks.study_summary(config("model=emoji64"), study)
    assert found.numbers == {"frechet_distance real lite0/a": 2.5}
    assert sorted(found.tables) == ["record/settings", "rows", "steps"]
    assert list(found.tables["record/settings"]["at.W"]) == [1, pytest.approx(float("nan"), nan_ok=True)]
    assert [path.name for path in found.pictures["a"]] == ["0.png", "2.png", "10.png"]
    assert found.pictures["b"] == [] and "old" not in found.pictures


def test_offline_keeps_a_study(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    cfg = config("log.wandb.mode=offline")
    sinks.log(cfg, study, lambda: sinks.study_summary(cfg, study))
    assert capsys.readouterr().err == ""
    (files,) = study.glob("wandb/offline-run-*/files")
    metrics = json.loads(next(files.glob("media/table/rows*.json")).read_text())
    place = metrics["columns"].index("value")
    first, second = [row[place] for row in metrics["data"]]
    assert first == 2.5 and pd.isna(second)
    assert list(files.glob("media/table/record/settings*.json"))
    assert len(list(files.glob("media/images/a*.png"))) == 3


def test_a_table_has_one_type_a_column() -> None:
    table = sinks.plain(pd.DataFrame({"n": [1, 2], "x": [0.5, None], "study": [["main", "W"], None]}))
    assert table.study[0] == "['main', 'W']" and pd.isna(table.study[1])
    assert list(table.n) == [1, 2] and table.x[1] is None


def test_a_table_of_a_study_is_one_that_wandb_takes() -> None:
    import wandb

    rows = pd.DataFrame({"warmup": [1, None], "kv_bytes": [2.0, None], "reason": [None, "too many stages"]})
    found = wandb.Table(dataframe=sinks.plain(rows.convert_dtypes()))
    assert found.data == [[1, 2, None], [None, None, "too many stages"]]


def do_nothing(cfg: RunConfig, out: Path | None = None) -> str | None:
    return out and "ok"


@pytest.mark.parametrize("logged", [True, False])
def test_every_measure_is_logged_but_the_one_that_logs_itself(
    logged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Summary] = []
    monkeypatch.setitem(
        MEASURES,
        "params",
        replace(
            MEASURES["params"],
            study="",
            run=f"{__name__}.do_nothing",
            check=f"{__name__}.do_nothing",
            writes=(),
            logged=logged,
        ),
    )
    monkeypatch.setattr(sinks, "to_wandb", lambda cfg, folder, what: seen.append(what))
    (tmp_path / "run").mkdir()
    pd.DataFrame({"rank": [0], "param_bytes": [10]}).to_parquet(tmp_path / "run" / "rows.parquet")
    chosen = ["experiment=params_per_device", "log.wandb.mode=offline", f"hydra.run.dir={tmp_path / 'run'}"]
    assert command(monkeypatch, *chosen) == 0
    assert [what.name for what in seen] == (["emoji64-params"] if logged else [])
    unlogged = [name for name, row in MEASURES.items() if not row.logged]
    assert unlogged == ["gpu_check", *["params"] * (not logged), "train"]
