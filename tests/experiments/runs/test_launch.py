"""Ranks that end well, die, fail or hang: what the record says, and that no process stays."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pandas as pd
import pytest
import torch.distributed as dist

from experiments.config import RunConfig
from experiments.records import read_json
from experiments.runs import launch
from experiments.runs.launch import execute
from tests.experiments.commands import alive, config, rank_pids, wait_until
from tests.experiments.runs import fake_rank


@pytest.fixture(scope="module", autouse=True)
def _server(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The first launch of a process waits for the imports of the fork server; the tests below measure later ones."""
    execute(config("devices=3"), tmp_path_factory.mktemp("first"), fake_rank.good)


def test_run_that_ends_well(tmp_path: Path) -> None:
    record = execute(config("devices=3"), tmp_path, fake_rank.good)
    assert record == read_json(tmp_path / "run.json")
    assert record["status"] == "ok"
    assert record["latency_s"] == {"repeats": [1.5, 1.5], "median": 1.5, "spread": 0.0}
    assert 0 < record["startup_s"] < record["total_s"]
    assert record["scheduler"]["class"]
    assert record["guidance_scale"] == 4.5
    assert list(pd.read_csv(tmp_path / "ranks.csv")["rank"]) == [0, 1, 2]
    assert len(pd.read_csv(tmp_path / "ranks_repeats.csv")) == 6
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "config.yaml", "run.json", "inputs.safetensors", "latents.safetensors", "ranks.csv", "ranks_repeats.csv",
        "images", "manifest.json",
    }  # fmt: skip


FAILURES = [
    (fake_rank.kill, "failed", "rank 2 was killed by SIGKILL"),
    (
        fake_rank.watchdog,
        "failed",
        "rank 2 was killed by SIGABRT: Watchdog caught collective operation timeout: WorkNCCL",
    ),
    (fake_rank.fail, "failed", "rank 2: ValueError: layer 7 is missing"),
    (fake_rank.memory, "oom", "rank 2: MemoryError: no room for 12 GiB"),
    (fake_rank.diverge, "failed", "rank 2: FloatingPointError: latents not finite: rank 2, step 5"),
]


@pytest.mark.parametrize(("entry", "status", "reason"), FAILURES, ids=[case[0].__name__ for case in FAILURES])
@pytest.mark.fast_cases(2)
def test_rank_that_dies_is_named(
    entry, status: str, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = execute(config("devices=3"), tmp_path, entry)
    assert (record["status"], record["reason"]) == (status, reason)
    assert record == read_json(tmp_path / "run.json")
    assert len(rank_pids(tmp_path)) == 3
    assert not any(alive(pid) for pid in rank_pids(tmp_path))
    assert capfd.readouterr().err == ""
    if entry not in (fake_rank.kill, fake_rank.watchdog):
        assert "Traceback" in (tmp_path / "logs" / "rank-2.txt").read_text()


def test_a_rank_that_hangs_is_named(tmp_path: Path) -> None:
    """And not one of those that wait for it."""
    record = execute(config("devices=3", "cluster.timeout_s=1"), tmp_path, fake_rank.stall)
    assert record["status"] == "failed"
    assert record["reason"].startswith("rank 1 hangs: rank ")
    assert record["reason"].endswith(" in stop")


@pytest.mark.slow
def test_a_rank_that_is_stopped_is_named_and_killed(tmp_path: Path) -> None:
    record = execute(config("cluster.timeout_s=1"), tmp_path, fake_rank.freeze)
    assert record["reason"].startswith("rank 2 hangs: rank ")
    assert not any(alive(pid) for pid in rank_pids(tmp_path))


def test_a_failed_rank_tears_nothing_down(tmp_path: Path) -> None:
    record = execute(config("devices=2"), tmp_path, fake_rank.fail_with_a_receive_posted)
    assert (record["status"], record["reason"]) == ("failed", "rank 1: ValueError: layer 7 is missing")


@pytest.mark.slow
def test_work_of_the_host_may_take_longer_than_a_communication(tmp_path: Path) -> None:
    record = execute(config("devices=2", "cluster.timeout_s=1"), tmp_path, fake_rank.decode_for_long)
    assert record["status"] == "ok", record["reason"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_all_ranks(number: signal.Signals, tmp_path: Path) -> None:
    def press() -> None:
        wait_until(lambda: len(rank_pids(tmp_path)) == 3 and all(rank_pids(tmp_path)))
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=press, daemon=True).start()
    record = execute(config("devices=3"), tmp_path, fake_rank.hang)
    assert (record["status"], record["reason"]) == ("interrupted", f"ended by {number.name}")
    assert not any(alive(pid) for pid in rank_pids(tmp_path))
    assert signal.getsignal(number) is before


def test_a_rank_of_torchrun_that_fails_writes_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have only lost it, rank 0 too, which writes the record."""

    def fail(run_dir: str, cfg: RunConfig) -> None:
        raise MemoryError("no room for 12 GiB")

    def lose(run_dir: str, cfg: RunConfig) -> None:
        assert execute_as(1, fail)["status"] == "oom"
        raise dist.DistBackendError("NCCL error: remote process exited")

    def execute_as(rank: int, entry) -> dict:
        monkeypatch.setenv("RANK", str(rank))
        return execute(config("devices=2"), tmp_path, entry)

    monkeypatch.setattr(launch, "GRACE_S", 0.0)
    record = execute_as(0, lose)
    assert (record["status"], record["reason"]) == ("oom", "rank 1: MemoryError: no room for 12 GiB")
    assert read_json(tmp_path / "run.json") == record
