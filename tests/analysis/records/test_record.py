"""Records of a newer schema, and records that say `running` though their process is gone."""

from __future__ import annotations

import fcntl
import json
import re
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.records.record import LOCK, load_record, load_run
from analysis.runs import frame
from tests.analysis.synthetic import write_run

WHO = {"pid": 7, "host": "a-host", "since": "2026-01-01T00:00:00+00:00", "command": "run.py steps=2"}


def test_a_run_is_dead_when_nobody_holds_its_directory(tmp_path: Path) -> None:
    run = write_run(tmp_path, "serial", status="running")
    assert load_run(run) == load_record(run / "run.json") | {
        "status": "died",
        "reason": "ended without a word",
    }
    (run / LOCK).write_text(json.dumps(WHO))
    reason = "ended without a word: process 7 on a-host since 2026-01-01T00:00:00+00:00 (run.py steps=2)"
    assert frame.runs(tmp_path)[["status", "reason"]].to_numpy().tolist() == [["died", reason]]
    with (run / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert frame.runs(tmp_path).status.tolist() == ["running"]


@pytest.mark.parametrize("schema", [99, "2", None, 1.5])
def test_a_newer_schema_is_refused_in_one_line(
    schema: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "records" / "quickstart", "serial")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"schema": schema}))
    (run / "timeline.parquet").touch()
    for command in (["quickstart_methods"], ["compare", str(run), str(run)], ["timeline", str(run)]):
        assert main(command, tmp_path) == 2
        message = capsys.readouterr().err
        assert f"schema {schema}, and this version reads up to 1" in message and message.count("\n") == 1
    assert not (tmp_path / "tables").exists()


def test_a_record_without_a_schema_is_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text('{"rows": []}')
    assert load_record(tmp_path / "bench.json") == {"rows": []}


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_broken_record_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hardware": 7}, "hardware=7, as no run records it; allowed: dict"),
        ({"devices": float("inf")}, "devices=inf, as no run records it; allowed: int"),
        ({"devices": True}, "devices=True, as no run records it; allowed: int"),
        ({"method": "x\x1b[2J"}, "as no run records it; allowed: str, dict"),
        ({"status": None}, "is of no run of this project; allowed: what run.py wrote"),
    ],
)
def test_a_record_that_no_run_wrote_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    content = {"status": "ok", **change}
    content = {key: value for key, value in content.items() if value is not None}
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(message)):
        load_run(tmp_path)
