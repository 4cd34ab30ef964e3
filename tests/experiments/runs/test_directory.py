"""A run directory has one process at a time, and loses nothing that the project did not write."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from analysis.records.record import LOCK, MANIFEST, holder, note_files
from experiments import records
from experiments.command.compose import plan
from experiments.command.measures import MEASURES
from experiments.errors import ConfigError
from experiments.runs import directory
from tests.experiments.commands import QUICK, command

RUN = [*QUICK, "cluster=sim", "method=serial", "measure.memory=false"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def content(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """As another process would have it: locks are of open files, not of processes."""
    who = {"pid": 7, "host": "a-host", "since": "2026-01-01", "command": "run.py"}
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(json.dumps(who))
    with (folder / LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("name", ["images/mine.png", "logs/mine.txt", "run.json", "manifest.json"])
@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.fast_cases(3)
def test_what_others_wrote_is_refused_and_stays(
    name: str,
    sweep: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = tmp_path / "own"
    (own / name).parent.mkdir(parents=True)
    (own / name).write_text('{"name": "mine"}')
    where = ["hydra.sweep.dir=.", "hydra.sweep.subdir=own", "-m"] if sweep else ["hydra.run.dir=own"]
    before = content(tmp_path)
    assert command(monkeypatch, *where[2:], *RUN, *where[:2]) == 2
    key = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    text = f"error: {key}=own holds {name}, which no run of this project wrote; allowed: a new or empty directory"
    errors = capsys.readouterr().err
    assert errors.startswith(text) and errors.count("\n") == 1
    assert content(tmp_path) == before


def test_a_run_again_takes_what_the_first_one_wrote_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    foreign = {"wandb/offline/run.wandb", "half.tmp", "notes.txt"}
    for name in foreign:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("mine")
    assert command(monkeypatch, *RUN, "hydra.run.dir=run", "images_per_prompt=2") == 0
    assert (run / "images" / "1.png").exists()
    assert command(monkeypatch, *RUN, "hydra.run.dir=run") == 0
    assert not (run / "images" / "1.png").exists()
    assert all((run / name).read_text() == "mine" for name in foreign)
    assert not (run / LOCK).exists()

    (run / "images" / "mine.png").write_text("mine")  # beside the run's own
    capsys.readouterr()
    assert command(monkeypatch, *RUN, "hydra.run.dir=run") == 2
    assert "run holds images/mine.png, which no run" in capsys.readouterr().err
    assert (run / "images" / "0.png").exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "0.png").write_text("mine")
    run = tmp_path / "run"
    directory.clear(run, "latency", records.FILES)
    directory.claim(run, "latency", records.FILES)
    (run / "images").symlink_to(tmp_path / "mine")
    directory.clear(run, "latency", records.FILES)
    assert not (run / "images").is_symlink() and (tmp_path / "mine" / "0.png").exists()


def test_runs_of_before_the_manifest_and_killed_ones_may_be_run_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    (run / "images" / "0.png").touch()
    assert "holds images/0.png" in str(directory.problem(run, "latency", records.FILES))
    records.write_json(run / "run.json", {"git_commit": "c0ffee", "created": "2026-01-01"})
    assert directory.problem(run, "latency", records.FILES) is None
    (run / "run.json").unlink()
    directory.claim(run, "latency", records.FILES)
    assert directory.problem(run, "latency", records.FILES) is None


def test_what_is_drawn_of_a_run_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    directory.settle(tmp_path, "latency", records.FILES)
    (tmp_path / "timeline.png").touch()
    assert "holds timeline.png" in str(directory.problem(tmp_path, "latency", records.FILES))
    note_files(tmp_path, [tmp_path / "timeline.png"])
    directory.clear(tmp_path, "latency", records.FILES)
    assert content(tmp_path) == {MANIFEST}


def test_another_measure_or_a_newer_schema_is_refused(tmp_path: Path) -> None:
    directory.claim(tmp_path, "quality", ("images",))
    assert f"{tmp_path} holds a run of measure=quality; allowed: another" in str(
        directory.problem(tmp_path, "latency", records.FILES)
    )
    directory.claim(tmp_path, "latency", records.FILES)
    records.write_json(tmp_path / "run.json", {"schema": 99, "status": "ok"})
    text = str(directory.problem(tmp_path, "latency", records.FILES))
    assert text.startswith(f"{tmp_path / 'run.json'} has schema 99, and this version reads up to 1")
    with pytest.raises(ConfigError):
        directory.clear(tmp_path, "latency", records.FILES)
    assert (tmp_path / "run.json").exists()


def test_a_measure_writes_what_it_says_and_takes_its_directory_as_runs_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["experiment=params_per_device", "measure.models=[pixart_tiny]", "hydra.run.dir=here"]
    arguments += ["measure.literal.model=pixart_tiny", "log.wandb.mode=disabled"]
    assert command(monkeypatch, *arguments) == 0
    names = {"record.json", "rows.parquet"}
    assert names < set(MEASURES["params"].writes)
    assert content(tmp_path / "here") == names | {MANIFEST}
    assert set(json.loads((tmp_path / "here" / MANIFEST).read_text())["files"]) == names
    shutil.move(tmp_path / "here" / "rows.parquet", tmp_path / "rows.parquet")
    (tmp_path / "here" / MANIFEST).unlink()
    (tmp_path / "here" / "record.json").write_text("{}")
    capsys.readouterr()
    assert command(monkeypatch, *arguments) == 2
    assert "holds record.json, which no run" in capsys.readouterr().err
    arguments[2] = "hydra.run.dir=there"
    with held(tmp_path / "there"):
        assert command(monkeypatch, *arguments) == 2
    assert "there is held by process 7" in capsys.readouterr().err


def test_a_run_in_a_held_directory_is_refused_with_who_and_since_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(tmp_path / "run"):
        assert command(monkeypatch, *RUN, "hydra.run.dir=run") == 2
        assert content(tmp_path / "run") == {LOCK}
    errors = capsys.readouterr().err
    assert (
        "hydra.run.dir=" in errors
        and "run is held by process 7 on a-host since 2026-01-01 (run.py)" in errors
    )
    assert errors.count("\n") == 1
    assert command(monkeypatch, *RUN, "hydra.run.dir=run") == 0  # the file stayed, its process did not


def test_a_lock_is_free_for_readers_and_gone_at_the_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with directory.taken(run):
        assert "since" in str(holder(run))
        with pytest.raises(directory.Held), directory.taken(run):
            pass
    assert holder(run) is None and list(run.iterdir()) == []
    with directory.taken(run):
        shutil.rmtree(run)
        run.mkdir()
        (run / LOCK).write_text("of another")
    assert (run / LOCK).exists()  # it took the directory anew


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with directory.taken(tmp_path / "run"):
        assert capsys.readouterr().err.startswith(f"warning: {tmp_path / 'run'} cannot be locked (No locks")


def test_under_torchrun_only_rank_0_takes_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with held(tmp_path / "run"), directory.taken(tmp_path / "run"):
        pass


def test_runs_with_different_configurations_have_different_names() -> None:
    def names(*overrides: str) -> list[str]:
        return [str(job.hydra.sweep.subdir) for job in plan([*RUN, *overrides], multirun=True).jobs]

    first, second = names("prompt='a cat!','a cat?'")
    assert first[:-11] == second[:-11] and first != second
    assert names("prompt='a cat!'") == [first]
    assert names("prompt='a cat!'", "log.progress=false", "resume=false") == [first]
    (long,) = names(f"prompt='{'猫' * 200}'")
    assert len(long.encode()) < 200


def test_a_folder_for_several_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["-m", *RUN, "seed=0,1", "hydra.sweep.subdir=${method.name}"]
    assert command(monkeypatch, *sweep) == 2
    assert capsys.readouterr().err.startswith(
        "error: hydra.sweep.subdir=serial is of several runs; allowed: "
    )
    assert content(tmp_path) == set()


def test_two_commands_in_the_same_second_have_two_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(monkeypatch, *RUN) == 0
    assert command(monkeypatch, *RUN) == 0
    assert len(list(tmp_path.glob("results/runs/*/*/run.json"))) == 2
