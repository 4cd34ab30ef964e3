"""Files are written whole, and what was half-written is not taken for a record."""

from __future__ import annotations

from pathlib import Path

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
    ("status", "stored", "again"),
    [
        ("ok", "seed: 0", False),
        ("skipped", "seed: 0", False),
        ("ok", "seed: 1", True),
        ("ok", None, True),
        ("failed", "seed: 0", True),
        ("oom", "seed: 0", True),
        ("interrupted", "seed: 0", True),
        ("running", "seed: 0", True),
    ],
)
def test_what_is_run_again(status: str, stored: str | None, again: bool, tmp_path: Path) -> None:
    records.write_json(tmp_path / "run.json", {"status": status})
    if stored is not None:
        (tmp_path / "config.yaml").write_text(stored)
    assert (records.finished(tmp_path, "seed: 0") is None) == again


def test_clean_removes_its_own_files_only(tmp_path: Path) -> None:
    for name in (
        "run.json",
        ".rank-0.json",
        ".rank-1.ledger.parquet",
        "latents.safetensors.77.tmp",
        ".run.json.8.tmp",
        "notes.txt",
    ):
        (tmp_path / name).write_text("x")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_text("x")
    records.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_latency_keeps_every_repeat() -> None:
    assert records.latency([3.0, 1.0, 2.0]) == {"repeats": [3.0, 1.0, 2.0], "median": 2.0, "spread": 2.0}
