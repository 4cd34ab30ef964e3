"""A short form of `experiment=perturb`, and the bugs planted to show that it finds them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.config import ModelConfig
from experiments.methods import METHODS
from experiments.models import open_model
from experiments.perturb import PRODUCTS, PerturbCase, PerturbConfig, Subject, disasters, grid, verdict
from pipefusion.core.fabric import Work
from pipefusion.core.ledger import Kind
from pipefusion.core.parallel import Parallel
from pipefusion.sim.engine import RankFailed
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.faults import Faults, Kill
from tests.cases import TINY
from tests.experiments.runs import command

SMALL = PerturbConfig(steps=3, devices=[2, 3], patches=[3, 4], warmups=[0, 1], products=[])
WITH_PRODUCTS = replace(SMALL, devices=[2], products=list(PRODUCTS))


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.set_num_threads(1)
    return Subject(open_model(ModelConfig(name="tiny", architecture=TINY | {"num_layers": 3})), SMALL.steps)


@pytest.mark.parametrize("name", METHODS)
def test_no_order_of_events_changes_the_result(subject, name):
    cases = [case for case in grid(SMALL, subject.model) if case.method == name]
    assert cases
    for index in range(12):
        case = cases[index % len(cases)]
        want = subject.latents(case, Faults())
        assert verdict(subject, case, Faults(seed=index), want) is None


def products(subject: Subject) -> list[PerturbCase]:
    return [case for case in grid(WITH_PRODUCTS, subject.model) if case.parallel.axes]


def test_products_are_in_the_grid(subject):
    """Each with one rank on the method's own axis and with two; a ring around a stale buffer in both its forms."""
    cases = products(subject)
    assert {case.method for case in cases} == set(METHODS)
    own = {
        (case.devices, case.ring) for case in cases if case.method == "pipefusion" and case.parallel.ring > 1
    }
    assert own == {(devices, ring) for devices in (2, 4, 8) for ring in ("gather", "rotate")}
    assert len({case.name for case in cases}) == len(cases)


HANDFUL = [
    PerturbCase("pipefusion", 4, 3, 1, parallel=Parallel(cfg=2)),
    PerturbCase("pipefusion", 4, 4, 0, parallel=Parallel(data=2)),
    PerturbCase("pipefusion", 4, 3, 1, parallel=Parallel(ulysses=2)),
    PerturbCase("pipefusion", 4, 3, 0, "rotate", parallel=Parallel(ring=2)),
    PerturbCase("distrifusion", 4, None, 1, parallel=Parallel(ulysses=2)),
    PerturbCase("pcpp", 4, None, 1, parallel=Parallel(ring=2)),
    PerturbCase("ring", 4, parallel=Parallel(ulysses=2)),
    PerturbCase("sync_pipeline", 4, parallel=Parallel(tensor=2)),
]


@pytest.mark.parametrize("case", HANDFUL, ids=lambda case: case.name)
def test_no_order_of_events_changes_the_result_of_a_product(subject, case):
    want = subject.latents(case, Faults())
    for seed in range(3):
        assert verdict(subject, case, Faults(seed=seed), want) is None


@pytest.mark.slow
def test_five_hundred_schedules_of_products(subject):
    want, cases = {}, products(subject)
    for seed in range(500):
        case = cases[seed % len(cases)]
        if case not in want:
            want[case] = subject.latents(case, Faults())
        assert verdict(subject, case, Faults(seed=seed), want[case]) is None, f"seed {seed}: {case.name}"


def test_a_killed_rank_of_a_product_is_named_with_its_place(subject):
    case = PerturbCase("pipefusion", 6, 3, 1, parallel=Parallel(cfg=2))
    with pytest.raises(RankFailed, match=r"^rank 5 \(cfg 1, pipe 2\): Killed"):
        subject.latents(case, Faults(kill=Kill(5, 3)))


def test_an_undisturbed_run_that_is_not_finite_is_no_reference(subject):
    case = grid(PerturbConfig(steps=2), subject.model)[0]
    want = subject.latents(case, Faults(seed=None))
    assert verdict(subject, case, Faults(seed=1), want) is None
    assert "not finite" in str(verdict(subject, case, Faults(seed=1), want * torch.inf))


def test_a_schedule_repeats_from_its_seed(subject):
    """Not only the result: every wait is the same to the last bit, and another seed's are not."""

    def waits(seed: int) -> list[float]:
        fabrics: list[SimFabric] = []
        keep = lambda fabric: fabrics.append(fabric) or fabric  # noqa: E731
        subject.latents(PerturbCase("pipefusion", 3, 4, 1), Faults(seed=seed), keep)
        return [entry.wait_s for fabric in fabrics for entry in fabric.ledger.entries]

    assert waits(5) == waits(5)
    assert waits(5) != waits(6)


def test_killed_ranks_and_lost_messages_are_named(subject):
    cases = [case for case in grid(SMALL, subject.model) if case.method != "serial"]
    assert disasters(subject, cases, 10) == []
    assert disasters(subject, HANDFUL, 5) == []


def test_a_disaster_that_nobody_notices_is_reported(subject, monkeypatch):
    deaf = Subject.latents
    monkeypatch.setattr(Subject, "latents", lambda self, case, faults: deaf(self, case, Faults()))
    found = disasters(subject, [HANDFUL[0]], 1)
    assert len(found) == 3 and all(text.endswith(": nothing") for text in found)
    assert "Drop(source=0, to=1, number=0)" in found[2]


class Faulty:
    """A fabric with a bug between it and the method; everything not overridden is the fabric's own."""

    def __init__(self, fabric: SimFabric):
        self._fabric = fabric

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fabric, name)


class NoWait:
    def wait(self) -> None:
        return None


class ForgetsToWaitForReceives(Faulty):
    def irecv(self, out: Tensor, source: int, **where: Any) -> Work:
        self._fabric.irecv(out, source, **where)
        return NoWait()


class ForgetsToWaitForGathers(Faulty):
    def all_gather(self, out: Tensor, tensor: Tensor, **where: Any) -> Work | None:
        work = self._fabric.all_gather(out, tensor, **where)
        return NoWait() if where.get("async_op") else work


class SwapsReceives(Faulty):
    """Every second message goes where the one before it should have gone."""

    held: tuple[Tensor, Any] | None = None

    def irecv(self, out: Tensor, source: int, **where: Any) -> Work:
        before, self.held = self.held, None if self.held else (out, where["at"])
        if before is not None and before[0].shape == out.shape:
            where["at"] = before[1]
        return self._fabric.irecv(out, source, **where)


class AliasesKV(Faulty):
    """All layers share one K, V buffer."""

    shared: Tensor | None = None

    def zeros(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        if kind != "kv":
            return self._fabric.zeros(kind, *shape, dtype=dtype)
        if self.shared is None:
            self.shared = self._fabric.zeros(kind, *shape, dtype=dtype)
        return self.shared


class ReceivesIntoOneBuffer(Faulty):
    """The two alternating receive buffers are one, so the next input lands where the present one is read."""

    shared: Tensor | None = None

    def empty(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        if kind != "comm":
            return self._fabric.empty(kind, *shape, dtype=dtype)
        if self.shared is None or self.shared.shape != shape:
            self.shared = self._fabric.empty(kind, *shape, dtype=dtype)
        return self.shared


class SendsWhatItGoesOnWriting(Faulty):
    """The tensor is changed between the send and the wait for it."""

    def isend(self, tensor: Tensor, to: int, **where: Any) -> Work:
        work = self._fabric.isend(tensor, to, **where)
        tensor.mul_(2)
        return work


class SkipsAGather(Faulty):
    """One rank leaves out one collective."""

    left = 5

    def all_gather(self, out: Tensor, tensor: Tensor, **where: Any) -> Work | None:
        self.left -= 1
        if self.left == 0 and self._fabric.rank == 1:
            return None
        return self._fabric.all_gather(out, tensor, **where)


PLANTED: list[tuple[type[Faulty], PerturbCase, str]] = [
    (
        ForgetsToWaitForReceives,
        PerturbCase("pipefusion", 3, 4, 1),
        "missing wait|not finite|differ|overwritten",
    ),
    (ForgetsToWaitForReceives, PerturbCase("ring", 3), "missing wait|not finite|overwritten"),
    (ForgetsToWaitForGathers, PerturbCase("distrifusion", 3, None, 1), "missing wait|not finite|differ"),
    (ForgetsToWaitForReceives, PerturbCase("pcpp", 3, None, 1), "missing wait|not finite|differ"),
    (SwapsReceives, PerturbCase("pipefusion", 2, 4, 1), "mismatched order"),
    (AliasesKV, PerturbCase("pipefusion", 2, 4, 1), "differ"),
    (ReceivesIntoOneBuffer, PerturbCase("pipefusion", 3, 4, 1), "not finite|differ|overwritten"),
    (SendsWhatItGoesOnWriting, PerturbCase("ring", 2), "overwritten buffer"),
    (SkipsAGather, PerturbCase("distrifusion", 3, None, 1), "mismatched|deadlock"),
]


@pytest.mark.parametrize(
    ("bug", "case", "found_as"), PLANTED, ids=lambda value: getattr(value, "__name__", None)
)
def test_planted_bugs_are_found_under_every_schedule(
    subject, bug: Callable, case: PerturbCase, found_as: str
):
    want = subject.latents(case, Faults())
    for seed in range(5):
        problem = verdict(subject, case, Faults(seed=seed), want, wrap=bug)
        assert problem is not None, f"seed {seed}"
        assert re.search(found_as, problem), problem


def broken_build(*_: Any) -> Any:
    raise TypeError("no such argument")


def broken_sampler(*_: Any) -> Callable[..., Tensor]:
    return lambda noise, cond, scheduler: noise + noise[:, :, :-1]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (broken_build, "TypeError: no such argument"),
        (broken_sampler, "RankFailed: rank 0: RuntimeError: The size"),
    ],
)
def test_a_method_that_fails_undisturbed_is_the_first_finding(
    build: Callable[..., Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Recorded once for each of its cases, and the others are tried as ever."""
    monkeypatch.setitem(METHODS, "ring", replace(METHODS["ring"], build=build))
    few = ["schedules=12", "kills=1", "steps=2", "devices=[2]", "patches=[2]", "warmups=[1]", "products=[]"]
    chosen = ["experiment=perturb", "model=pixart_tiny", *(f"measure.{key}" for key in few)]
    assert command(monkeypatch, *chosen, "log.wandb.mode=disabled", f"hydra.run.dir={tmp_path}") == 1
    record = json.loads((tmp_path / "perturb.json").read_text())
    (failure,) = record["failures"]
    assert failure["seed"] is None and failure["case"] == "ring N=2"
    assert failure["problem"].startswith(f"undisturbed: {said}")
    assert record["status"] == "failed" and record["not_named"] == []
    cases = [case["method"] for case in record["cases"]]
    tried = [cases[seed % len(cases)] for seed in range(12)]
    assert record["schedules_by_method"] == Counter(name for name in tried if name != "ring")
    assert record["schedules"] == 12 - tried.count("ring") > 0
    error = capsys.readouterr().err
    assert error.count("undisturbed: ") == 1 and "measure.only=" in error and "Traceback" not in error
