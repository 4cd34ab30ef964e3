"""The engine of studies: what is measured again and what is not, what becomes of cells that do not end well."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.records.study import load_study
from experiments.command.measures import MEASURES, load
from experiments.config import LogConfig, RunConfig, WandbConfig
from experiments.errors import ConfigError, RunFailed
from experiments.grid import GridConfig, model_config
from experiments.journal import Journal
from experiments.methods import METHODS
from experiments.pool import Bar, run_all, take_gpu
from experiments.runner import check, run, study_cells
from experiments.session import Session
from experiments.study import Cell, Study
from tests.experiments.commands import ROOT


@dataclass
class Options(GridConfig):
    """A measure's own keys."""

    name: str = "counted"
    workers: int | None = 1
    matters: int = 0


CALLS: list[str] = []


def count(cell: Cell, session: Session) -> list[dict[str, Any]]:
    """A row per rank; what ends badly is chosen by M."""
    CALLS.append(cell.key)
    patches = cell.place["patches"]
    if patches == 3:
        raise FloatingPointError("latents are NaN\nmore")
    if patches == 5:
        os._exit(9)
    if patches == 6:
        raise MemoryError("no room")
    if patches == 7:
        return [{"status": "oom", "reason": "no room", "missing_bytes": 1}]
    if patches == 8:
        raise RunFailed("interrupted", "ended by SIGINT")
    return [{"rank": rank, "kv_bytes": 10 * rank} for rank in range(cell.cfg.devices)]


COUNTED = Study("counted", count, ("method", "devices", "rank", "patches", "kv_bytes", "status"), "Counted")


def config(**grid: Any) -> RunConfig:
    lists = {"methods": ["serial", "pipefusion"], "devices": [2, 4], "patches": [1, 2]} | grid
    log = LogConfig(WandbConfig(mode="disabled"), progress=False)
    model = model_config("pixart_tiny")
    return RunConfig(
        model=model, method=METHODS["serial"].Config(), measure=Options(**lists), log=log, steps=4
    )


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


def test_serial_is_once_and_a_row_is_told_apart_by_its_first_columns(tmp_path):
    assert run(COUNTED, config(), tmp_path) == "ok"
    record = load_study(tmp_path)
    assert len(CALLS) == 1 + 2 * 2
    assert [*record.rows.groupby(["method", "devices", "patches"], dropna=False).size()] == [2, 2, 4, 4, 1]
    assert record.rows.kv_bytes.dtype == "Int64" and not (tmp_path / "cells").exists()
    assert record.facts["counts"] == {"ok": 13} and record.facts["config"]["steps"] == 4


def test_settings_of_single_methods_are_lists_like_others(tmp_path):
    lists = {"strides": [1, 2], "time_shifts": [False, True], "compresses": ["none", "int1"]}
    lists |= {"methods": ["asyncdiff", "distrifusion", "ring"], "sync_layers": [[], [1, 3]], "devices": [2]}
    assert run(COUNTED, config(**lists), tmp_path) == "ok"
    rows = load_study(tmp_path).rows.drop_duplicates("key")
    assert rows.method.value_counts().to_dict() == {"asyncdiff": 4, "distrifusion": 4, "ring": 2}
    assert {*rows.stride.dropna()} == {1, 2} and {*rows["compress"].dropna()} == {"none", "int1"}
    assert sorted(map(list, rows.sync_layers.dropna())) == [[], [], [1, 3], [1, 3]]
    with pytest.raises(ConfigError, match=r"measure\.forecasts='taylor4' is unknown, nearest: taylor3"):
        check(COUNTED, config(forecasts=["taylor4"]))
    with pytest.raises(ConfigError, match=r"measure\.compresses='int3' is unknown, nearest: int4"):
        check(COUNTED, config(compresses=["int3"]))


def test_the_same_again_measures_nothing_and_a_wider_grid_what_is_new(tmp_path):
    run(COUNTED, config(), tmp_path)
    first = load_study(tmp_path).rows
    CALLS.clear()
    run(COUNTED, config(), tmp_path)
    assert not CALLS
    pd.testing.assert_frame_equal(load_study(tmp_path).rows, first)
    run(COUNTED, config(patches=[1, 2, 4]), tmp_path)
    assert len(CALLS) == 2
    CALLS.clear()
    run(COUNTED, replace(config(), resume=False), tmp_path)
    assert len(CALLS) == 5


@pytest.mark.parametrize(
    "change",
    [{"steps": 5}, {"prompt": "a tree"}, {"seed": 1}, {"measure": Options(["pixart_tiny"], matters=1)}],
)
def test_what_decides_a_result_is_in_the_key(change):
    cells = {cell.key for cell in study_cells(COUNTED, config(), Session())}
    assert not cells & {cell.key for cell in study_cells(COUNTED, replace(config(), **change), Session())}


def test_the_key_does_not_know_the_processes():
    cells = [cell.key for cell in study_cells(COUNTED, config(), Session())]
    assert cells == [cell.key for cell in study_cells(COUNTED, config(workers=7), Session())]


def test_rows_that_are_broken_are_not_measured_over(tmp_path, capsys):
    run(COUNTED, config(), tmp_path)
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'record.json'}\n")
    CALLS.clear()
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"resume=true .*rows.parquet is not whole.*; allowed: false"):
        run(COUNTED, config(), tmp_path)
    assert not CALLS and (tmp_path / "rows.parquet").read_bytes() == b"PAR1"
    assert run(COUNTED, replace(config(), resume=False), tmp_path) == "ok"


def test_a_cell_that_fails_is_a_row_and_is_measured_again(tmp_path, capsys):
    assert run(COUNTED, config(patches=[2, 3]), tmp_path) == "failed"
    rows = load_study(tmp_path).rows
    assert {*rows[rows.status == "failed"].reason} == {"FloatingPointError: latents are NaN"}
    assert "failed: pipefusion N=2" in capsys.readouterr().err
    assert "Traceback" in next((tmp_path / "logs").iterdir()).read_text()
    CALLS.clear()
    run(COUNTED, config(patches=[2, 3]), tmp_path)
    assert len(CALLS) == 2


def test_oom_stands_where_it_is_foretold_only(tmp_path, capsys):
    assert run(COUNTED, config(devices=[2], patches=[6, 7]), tmp_path) == "failed"
    assert [*load_study(tmp_path).rows.status] == ["ok", "oom", "oom"]
    assert capsys.readouterr().err.count("failed: ") == 1
    CALLS.clear()
    run(COUNTED, config(devices=[2], patches=[6, 7]), tmp_path)
    assert len(CALLS) == 1


def test_an_interrupted_cell_ends_the_study(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(COUNTED, config(devices=[2], patches=[8, 1]), tmp_path)
    assert len(CALLS) == 2 and not (tmp_path / "rows.parquet").exists()


def test_every_scheduler_is_checked(tmp_path):
    with pytest.raises(ConfigError, match="scheduler"):
        check(COUNTED, config(models=["emoji64"], schedulers=["shipped", "ddim"]))


def test_lists_of_one_value_at_most():
    study = replace(COUNTED, single=("devices",))
    check(study, config(devices=[2]))
    with pytest.raises(ConfigError, match=r"measure.devices=\[2, 4\] are several; allowed: one"):
        check(study, config())


def test_what_cannot_be_is_skipped_with_the_reason(tmp_path):
    assert run(COUNTED, config(methods=["serial", "ulysses"], devices=[2, 3]), tmp_path) == "ok"
    (skipped,) = load_study(tmp_path).rows.query("status == 'skipped'").to_dict("records")
    assert (skipped["method"], skipped["devices"]) == ("ulysses", 3) and "allowed: " in skipped["reason"]
    with pytest.raises(ConfigError, match=r"leaves no cell that can run: .*allowed: "):
        check(COUNTED, config(methods=["ulysses"], devices=[3]))


def test_a_size_that_the_model_does_not_have_is_skipped(tmp_path):
    assert run(COUNTED, config(methods=["serial"], resolutions=[32, 33]), tmp_path) == "ok"
    assert [*load_study(tmp_path).rows.status] == ["ok", "skipped"]


@pytest.mark.parametrize(
    "wrong", [{"methods": ["x"]}, {"patches": ["x"]}, {"warmups": ["x"]}, {"models": ["x"]}]
)
def test_a_grid_names_what_is_wrong(wrong):
    with pytest.raises(ConfigError, match=rf"measure.{next(iter(wrong))}=.*allowed: "):
        check(COUNTED, config(**wrong))


def test_a_journal_that_was_cut_off_anywhere_has_whole_cells_only(tmp_path):
    journal = Journal(tmp_path / "cells")
    for key in "abc":
        journal.append(key, [{"status": "ok", "reason": key}])
    (path,) = journal.folder.iterdir()
    whole, draw = path.read_bytes(), random.Random(0)
    for cut in sorted(draw.sample(range(len(whole)), 20)):
        path.write_bytes(whole[:cut])
        assert [*journal.read()] == [*"abc"[: whole[:cut].count(b"\n")]]


@pytest.mark.timeout(60)
def test_an_error_does_not_wait_for_what_the_others_are_at():
    bar = Bar(lambda: 0, 2, "jobs", shown=False)
    with pytest.raises(OSError, match="No such"):
        run_all(read_or_wait, [("/nowhere",), ("",)], 2, bar, __name__)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_processes_end_with_the_one_that_started_them(tmp_path):
    code = f"from tests.experiments.test_runner import wait_in_pool; wait_in_pool({str(tmp_path)!r})"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while len(found := [*tmp_path.iterdir()]) < 2:
        assert parent.poll() is None
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    while any(Path("/proc", path.name).exists() for path in found):
        time.sleep(0.1)


def wait_in_pool(folder: str) -> None:
    run_all(note_and_wait, [(folder,), (folder,)], 2, Bar(lambda: 0, 2, "jobs", shown=False), __name__)


def note_and_wait(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(1000)


def read_or_wait(path: str) -> None:
    if not path:
        time.sleep(1000)
    Path(path).read_text()


def test_every_study_can_be_sent_to_a_process():
    for row in MEASURES.values():
        if row.study:
            measure = load(row.study).measure
            assert pickle.loads(pickle.dumps(measure)) == measure


def test_processes_take_turns_of_the_gpus(monkeypatch):
    turn, ranks = multiprocessing.get_context("spawn").Value("i", 0), []
    monkeypatch.setenv("LOCAL_RANK", "")
    for _ in range(3):
        take_gpu(turn, 2)
        ranks.append(os.environ["LOCAL_RANK"])
    assert ranks == ["0", "1", "0"]


def test_the_journal_that_was_written_last_counts(tmp_path):
    journal = Journal(tmp_path / "cells")
    for name, reason, age in (("a", "again", 0), ("b", "before", 100)):
        journal.append("key", [{"status": "ok", "reason": reason}])
        (path,) = (one for one in journal.folder.iterdir() if one.stem not in "ab")
        os.utime(path, (1000 - age, 1000 - age))
        path.rename(journal.folder / f"{name}.jsonl")
    assert journal.read()["key"][0]["reason"] == "again"
