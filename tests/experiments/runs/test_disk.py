"""A disk without room, and a directory that goes away: the reason is said, and recorded where anything can be."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from experiments import records
from experiments.config import RunConfig
from experiments.records import read_json
from experiments.runs import launch
from experiments.runs.agent import prepare
from tests.experiments.commands import QUICK, command, config

RUN = [*QUICK, "cluster=sim", "method=serial", "measure.memory=false"]


def limited(cfg: RunConfig, folder: str, most_bytes: int, pipe: Any) -> None:
    """A run whose files cannot grow beyond so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    pipe.send(launch.execute(cfg, Path(folder)))


@pytest.mark.parametrize("most_bytes", [1000, 4500])
@pytest.mark.fast_cases(1)
def test_files_that_cannot_be_written_are_the_recorded_reason(most_bytes: int, tmp_path: Path) -> None:
    prepare()
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=limited, args=(config(*RUN), str(tmp_path / "run"), most_bytes, theirs))
    process.start()
    assert ours.poll(120)
    record = ours.recv()
    process.join()
    assert record["status"] == "failed" and "File too large" in record["reason"]
    stored = read_json(tmp_path / "run" / "run.json")
    if most_bytes == 1000:  # not even the first record
        assert stored is None and "run.json cannot be written" in record["reason"]
    else:
        assert stored == record
    assert not list((tmp_path / "run").glob("*.tmp")) + list((tmp_path / "run").glob(".*"))


@pytest.mark.parametrize("gone", [False, True])
def test_a_run_that_cannot_record_its_end_says_so(
    gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def vanish(*_: object) -> None:
        shutil.rmtree(tmp_path / "run")
        raise FloatingPointError("latents not finite")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if gone:
        monkeypatch.setattr(launch, "write_tensors", vanish)
    else:
        monkeypatch.setattr(records, "write_last", full)
    assert command(monkeypatch, *RUN, f"hydra.run.dir={tmp_path / 'run'}") == 1
    cause = "FloatingPointError: latents not finite; " if gone else ""
    why = "No such file or directory" if gone else "No space left on device"
    assert capsys.readouterr().err == f"failed: {cause}run.json cannot be written ({why})\n"


def test_a_sweep_directory_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "mkdir", full)
    assert command(monkeypatch, *RUN, f"hydra.run.dir={tmp_path / 'run'}") == 1
    errors = capsys.readouterr().err
    assert (
        errors.startswith("failed: OSError: [Errno 28] No space left on device") and errors.count("\n") == 1
    )


def test_a_measure_on_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments import runner

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "write_json", full)
    arguments = [
        "measure.models=[pixart_tiny]",
        "measure.literal.model=pixart_tiny",
        "log.wandb.mode=disabled",
    ]
    assert (
        command(monkeypatch, "experiment=params_per_device", *arguments, f"hydra.run.dir={tmp_path / 'run'}")
        == 1
    )
    assert capsys.readouterr().err.endswith("failed: OSError: [Errno 28] No space left on device\n")
