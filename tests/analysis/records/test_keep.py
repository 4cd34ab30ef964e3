"""`python -m analysis keep FOLDER NAME`: what was there stays until its successor is there whole."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from analysis.records import files
from analysis.records.record import LOCK
from tests.analysis.synthetic import write_run


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two records, and beside the results folder what is nobody's business."""
    for name in ("quickstart", "other"):
        write_run(tmp_path / "runs" / name, "serial")
        assert main(["keep", str(tmp_path / "runs" / name), name], tmp_path / "results") == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    return tmp_path / "results"


@pytest.mark.parametrize("name", [".", "", "..", "../../mine", "quickstart/../../../mine", "/mine", "link"])
def test_a_name_stays_below_the_records(
    name: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "records" / "link").symlink_to(tmp_path / "mine")
    before = content(tmp_path)
    name = str(tmp_path / "mine") if name == "/mine" else name
    assert main(["keep", str(tmp_path / "runs" / "quickstart"), name], results) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: keep: NAME={name!r} leaves ") and errors.count("\n") == 1
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "source", ["results/records/quickstart", "results/records", "results/records/quickstart/serial"]
)
def test_a_record_is_not_made_of_itself(source: str, results: Path, tmp_path: Path) -> None:
    before = content(tmp_path)
    assert main(["keep", str(tmp_path / source), "quickstart"], results) == 2
    assert content(tmp_path) == before


def test_what_is_no_record_is_not_replaced(results: Path, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs" / "quickstart")
    (results / "records" / "paper" / "scaling").mkdir(parents=True)
    (results / "records" / "paper" / "scaling" / "record.json").write_text("{}")
    (results / "records" / "other" / "notes.md").write_text("by hand")
    before = content(tmp_path)
    assert main(["keep", runs, "paper"], results) == 2  # a folder of records
    assert main(["keep", runs, "other"], results) == 2
    assert content(tmp_path) == before


def test_a_copy_that_fails_leaves_the_record(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(results)

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    write_run(tmp_path / "runs" / "quickstart", "ring")
    monkeypatch.setattr(shutil, "copyfile", full)
    assert main(["keep", str(tmp_path / "runs" / "quickstart"), "quickstart"], results) == 2
    assert "No space left" in capsys.readouterr().err
    assert content(results) == before


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "old").write_text("old")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError), files.replacing_folder(tmp_path / "kept") as fresh:
        (fresh / "new").write_text("new")
    assert content(tmp_path) == {"kept/old": b"old"}


def change(run: Path, **values: Any) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | values))


def test_only_runs_that_are_read_here_and_have_ended_are_kept(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "quickstart" / "serial"
    before = content(results)
    with (run / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["keep", str(run.parent), "quickstart"], results) == 2
        assert f"{run} is held by another process" in capsys.readouterr().err
    change(run, schema=99)
    assert main(["keep", str(run.parent), "quickstart"], results) == 2
    assert "run.json has schema 99, and this version reads up to 1" in capsys.readouterr().err
    assert content(results) == before
