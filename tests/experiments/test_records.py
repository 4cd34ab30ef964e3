"""Files are written whole, and what was half-written is not taken for a record."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pandas as pd
import pytest

from experiments import records


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    records.write_json(path, {"status": "ok"})

    def fail_halfway() -> None:
        with records.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert records.read_json(path) == {"status": "ok"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_a_copy_without_its_repository_is_told_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIPEFUSION_LAB_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.git_commit(tmp_path) is None
    monkeypatch.setenv("PIPEFUSION_LAB_COMMIT", "c0ffee")
    (tmp_path / "copy").mkdir()  # the answer for a folder is kept
    assert records.git_commit(tmp_path / "copy") == "c0ffee"


def test_unserialisable_record_leaves_nothing(tmp_path: Path) -> None:
    circle: dict[str, object] = {}
    circle["self"] = circle
    with pytest.raises(ValueError):
        records.write_json(tmp_path / "run.json", circle)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"status": '])
def test_broken_record_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    assert records.read_json(tmp_path / "run.json") is None
    assert records.finished(tmp_path, "") is None


@pytest.mark.parametrize(
    ("status", "key", "again"),
    [
        ("ok", "k", False),
        ("skipped", "k", False),
        ("ok", "other", True),
        ("ok", None, True),
        ("failed", "k", True),
        ("oom", "k", True),
        ("interrupted", "k", True),
        ("running", "k", True),
    ],
)
def test_what_is_run_again(status: str, key: str | None, again: bool, tmp_path: Path) -> None:
    records.write_json(tmp_path / "run.json", {"status": status, "key": key})
    assert (records.finished(tmp_path, "k") is None) == again


def test_only_what_a_run_left_unfinished_is_removed_at_its_end(tmp_path: Path) -> None:
    own = {
        ".rank-0.json",
        ".rank-1.ledger.parquet",
        ".run.json.8.tmp",
        "..rank-1.json.7.tmp",
        ".progress.json",
    }
    foreign = {"latents.tmp", ".latents.tmp", ".notes.txt.7.tmp", "run.json", ".rank-list", ".ssh"}
    for name in own | foreign:
        (tmp_path / name).write_text("x")
    assert {path.name for path in records.rank_files(tmp_path)} == own


class TestFullDisk:
    """The last record of a run: where there is no room for a second file, into that of the first."""

    @pytest.fixture(autouse=True)
    def _full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(path: Path, content: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(records, "write_json", full)

    def test_the_old_record_makes_room(self, tmp_path: Path) -> None:
        path = tmp_path / "run.json"
        path.write_text('{"status": "running"}' + " " * 100)
        records.write_last(path, {"status": "failed", "reason": "no space"})
        assert path.read_text() == '{"status":"failed","reason":"no space"}'

    def test_too_little_room_loses_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int, offset: int, length: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        path = tmp_path / "run.json"
        path.write_text("{}")
        with pytest.raises(OSError):
            records.write_last(path, {"status": "failed"})
        assert path.read_text() == "{}"


def test_latency_keeps_every_repeat() -> None:
    assert records.latency([3.0, 1.0, 2.0]) == {"repeats": [3.0, 1.0, 2.0], "median": 2.0, "spread": 2.0}


def test_ranks_have_the_seconds_of_the_repeat_that_is_the_median(tmp_path: Path) -> None:
    for rank in range(2):
        repeats = [{"latency_s": seconds, "wait_s": seconds + rank} for seconds in (4.0, 1.0, 9.0)]
        part = {"row": {"rank": rank, **repeats[-1]}, "repeats": repeats}
        records.write_json(tmp_path / f".rank-{rank}.json", part)
    reports = records.merge_ranks(tmp_path, 2)
    rows = pd.read_csv(tmp_path / "ranks.csv")
    assert list(rows.wait_s) == [4.0, 5.0]
    assert records.latency([one["latency_s"] for one in reports[0]["repeats"]])["median"] == rows.latency_s[0]
    assert records.middle_repeat([2.0, 1.0]) == 1
