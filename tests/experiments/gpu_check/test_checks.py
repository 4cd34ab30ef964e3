"""The checks of a GPU, made on a CPU: how each can end, what the tables have, and that a wrong number is found."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.config import RunConfig
from experiments.gpu_check import alone, cases, measure, silent
from experiments.gpu_check.cases import (
    TOLERANCES,
    Check,
    Failed,
    Found,
    NotPossible,
    Tally,
    distance,
    families,
)
from experiments.gpu_check.checks import FIRST, checks
from experiments.gpu_check.judge import FAILED, NOT_POSSIBLE, PASSED, TooLong, in_ranks, judge, time_limit
from experiments.gpu_check.page import NO_PROOF, page
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models.model import open_model
from experiments.records import read_json
from pipefusion.families import VIEWS
from tests.experiments.commands import command, config
from tests.experiments.gpu_check import fake_checks

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in ranks: of several, those of a tiny model wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def _server(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The first launch of a process waits for the imports of the fork server, which a time limit would count."""
    in_ranks(fake_checks.good, 0, on_cpu(), tmp_path_factory.mktemp("first"))


def on_cpu(**options: Any) -> RunConfig:
    cfg = config("devices=2")
    return replace(cfg, cluster=replace(cfg.cluster, device="cpu"), measure=measure.GpuCheckConfig(**options))


def quiet(text: str) -> None:
    return None


def check(program: Any, ranks: int = 0) -> Check:
    return Check("a check", program.__name__, max(1, ranks), partial(in_ranks, program, ranks))


ENDS = [
    (fake_checks.good, 0, PASSED, "on cpu"),
    (fake_checks.wrong, 0, FAILED, "2 is not 3"),
    (fake_checks.impossible, 0, NOT_POSSIBLE, "no such unit"),
    (fake_checks.crash, 0, FAILED, "rank 0 was killed by SIGSEGV (at case 7)"),
    (fake_checks.bug, 0, FAILED, "rank 0: RuntimeError: illegal memory access (at case 8)"),
    (fake_checks.hang, 0, FAILED, "no end within 15 s (at case 9)"),
    (fake_checks.second_crashes, 2, FAILED, "rank 1 was killed by SIGSEGV"),
]


@pytest.mark.parametrize(("program", "ranks", "status", "detail"), ENDS, ids=[e[0].__name__ for e in ENDS])
@pytest.mark.fast_cases(2)
def test_every_end_is_a_row(program, ranks, status, detail, tmp_path: Path) -> None:
    row = judge(
        check(program, ranks), on_cpu(timeout_s=15 if program is fake_checks.hang else 60), 2, tmp_path
    )
    assert (row.status, row.detail) == (status, detail)
    assert any(tmp_path.iterdir()) == (status == FAILED)  # what failed leaves its files
    if program is fake_checks.bug:
        assert "illegal memory access\nand more" in row.log
    if program is fake_checks.hang:
        assert "fake_checks.py" in row.log and " in hang" in row.log


def test_too_few_devices_start_nothing(tmp_path: Path) -> None:
    def never(cfg: RunConfig, out: Path) -> Found:
        raise AssertionError

    row = judge(Check("a check", "x", 2, never), on_cpu(), 1, tmp_path)
    assert (row.status, row.detail) == (NOT_POSSIBLE, "takes 2 devices; here: 1")


def test_time_limit_gives_back_the_timer_it_found() -> None:
    before, handler = signal.getitimer(signal.ITIMER_REAL), signal.getsignal(signal.SIGALRM)
    with pytest.raises(TooLong, match=r"no end within 0.05 s"), time_limit(0.05):
        time.sleep(10)
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    assert signal.getsignal(signal.SIGALRM) is handler
    assert (before[0] == 0 and left == 0) or 0 < left <= before[0]


def test_checks_are_those_of_the_tables() -> None:
    found: dict[str, list[str]] = {}
    for one in checks(4):
        found.setdefault(one.what, []).append(one.of)
    assert sum(of == list(METHODS) for of in found.values()) == 4
    assert families() in found.values()
    assert {open_model(model_config(name)).class_name for name in families()} == set(VIEWS)
    several = [one.of for one in checks(4) if one.devices > 1]
    assert several[:2] == list(FIRST)
    assert len({(one.what, one.of) for one in checks(4)}) == len(checks(4))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_checks_are_listed_and_nothing_is_written(tmp_path, monkeypatch, capsys) -> None:
    for key in ([], ["cluster.device=cuda"]):
        keys = ["experiment=gpu_check", *key, f"hydra.run.dir={tmp_path}/run"]
        assert command(monkeypatch, *keys) == 2
        output = capsys.readouterr()
        assert output.err.startswith("error: cluster.device=") and output.err.count("\n") == 1
        for one in checks(2):
            assert one.what in output.out and one.of in output.out
    assert not (tmp_path / "run").exists()


def test_one_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys) -> None:
    def made(wrong: bool, cfg: RunConfig, out: Path) -> Found:
        if wrong:
            raise ZeroDivisionError("by 0 | or so")
        return Found("fine", {"gpu": "X"})

    chosen = [Check("sums", str(wrong), 1, partial(made, wrong)) for wrong in (True, False)]
    chosen.append(Check("pairs", "x", 3, partial(made, False)))
    monkeypatch.setattr(measure, "select", lambda cfg: chosen)
    cfg = on_cpu()
    assert measure.gpu_check(cfg, tmp_path) == "failed"
    assert "1 passed, 1 failed, 1 not possible here" in capsys.readouterr().out
    record = read_json(tmp_path / "gpu_check.json")
    assert [row["status"] for row in record["checks"]] == [FAILED, PASSED, NOT_POSSIBLE]
    assert (record["device"], record["complete"], record["hardware"]["gpu"]) == ("cpu", True, "X")
    assert set(record) >= {"hardware", "versions", "git_commit", "command", "config", "tolerances"}
    text = (tmp_path / "gpu_check.md").read_text()
    assert text == page(record) and NO_PROOF in text
    assert "| sums | True | ZeroDivisionError: by 0 / or so |" in text
    assert NO_PROOF not in page(record | {"device": "cuda"})


def test_a_record_of_half_the_checks_says_so(tmp_path: Path) -> None:
    measure.write(on_cpu(), [], 5, 1.0, tmp_path)
    assert "Ended before its end: 0 of 5 checks" in (tmp_path / "gpu_check.md").read_text()


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_distance_beyond_the_tolerance_fails(dtype: str) -> None:
    for found in (2 * TOLERANCES[dtype], float("nan"), float("inf")):
        tally = Tally()
        tally.add("x", dtype, 0.0)
        tally.add("flux", dtype, found)
        with pytest.raises(Failed, match=f"flux {dtype}"):
            tally.found()
    tally = Tally()
    tally.add("x", dtype, TOLERANCES[dtype])
    assert tally.found().numbers == {"worst": {dtype: TOLERANCES[dtype]}}
    with pytest.raises(NotPossible):
        Tally().found()


def test_distance_is_relative() -> None:
    wanted = torch.tensor([3.0, 4.0])
    assert distance(wanted.to(torch.float16) + torch.tensor([0.0, 0.5]), wanted) == pytest.approx(0.1)


@pytest.fixture
def one_family(monkeypatch) -> None:
    monkeypatch.setattr(cases, "families", lambda: ["pixart_tiny"])


@pytest.mark.usefixtures("one_family")
@pytest.mark.parametrize("name", FIRST)
def test_wrong_latents_of_a_device_are_found(name: str, monkeypatch) -> None:
    cfg = on_cpu()
    assert "3 runs" in alone.on_one(name, cfg, CPU, quiet).detail
    real = alone.simulated
    monkeypatch.setattr(alone, "simulated", lambda run, device: 1.2 * real(run, device))
    with pytest.raises(Failed, match=r"pixart_tiny float32: 2.0e-01 .* pixart_tiny bfloat16: 2\.\de-01"):
        alone.on_one(name, cfg, CPU, quiet)


@pytest.mark.usefixtures("one_family")
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.fast_cases(2)
def test_waiting_is_forbidden_in_all_steps_but_the_last(name: str) -> None:
    modes: list[str] = []
    found = silent.no_synchronisation(name, on_cpu(), CPU, quiet, modes.append)
    ranks = 1 if name == "serial" else 2
    assert found.detail == f"{ranks} ranks' programs"
    runs = " ".join(modes).replace("default error", "default|error").split("|")
    assert len(runs) == ranks
    # A rank of a round computes its own step of it alone.
    early = 1 if name == "parastep" else silent.STEPS - 1
    for run in runs:
        before = run.split().index("default")
        assert before >= early and set(run.split()[before:]) == {"default"}
    with pytest.raises(NotPossible, match="only CUDA sees"):
        silent.no_synchronisation(name, on_cpu(), CPU, quiet)


@pytest.mark.usefixtures("one_family")
def test_a_host_that_waits_is_named_with_its_place() -> None:
    def refuse(name: str) -> None:
        if name == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(
        Failed, match=r"pixart_tiny rank 1: called a .* \(tests/experiments/gpu_check/test_checks.py:\d+\)"
    ):
        silent.no_synchronisation("ring", on_cpu(), CPU, quiet, refuse)


def test_memory_that_was_not_predicted_is_found(monkeypatch) -> None:
    monkeypatch.setattr(silent, "MEMORY_MODEL", "pixart_tiny")
    cfg = on_cpu()
    assert "0.00%" in silent.memory("pipefusion", cfg, CPU, quiet).detail
    real = silent.predicted_peaks
    monkeypatch.setattr(silent, "predicted_peaks", lambda *args: [peak + 1 for peak in real(*args)])
    with pytest.raises(Failed, match=r"rank 0: a peak of \d+ bytes of tensors, predicted"):
        silent.memory("pipefusion", cfg, CPU, quiet)


@pytest.mark.parametrize(
    ("part", "detail"),
    [
        ("two steps on two devices, as run.py makes them pipefusion", "from the CPU"),
        ("edge", "1 edge, bandwidth"),
        ("killed is named, and the run ends ring", "rank 1 was killed by SIGKILL"),
        ("named with its step pipefusion", "latents not finite: rank 1, step 0"),
    ],
)
@pytest.mark.fast_cases(1)
def test_checks_of_several_devices(part: str, detail: str, tmp_path, monkeypatch) -> None:
    keys = ["experiment=gpu_check", "cluster.device=cpu", "devices=2", f"measure.only='{part}'"]
    assert command(monkeypatch, *keys, f"hydra.run.dir={tmp_path}/run") == 0
    (row,) = read_json(tmp_path / "run" / "gpu_check.json")["checks"]
    assert row["status"] == PASSED and detail in row["detail"], row
