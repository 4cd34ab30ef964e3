"""A short form of `experiment=perturb`, and the bugs planted to show that it finds them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.records.study import load_study
from experiments.config import RunConfig
from experiments.grid import model_config
from experiments.methods import METHODS, parallel_degrees
from experiments.runner import study_cells
from experiments.session import Session
from experiments.studies.perturb import (
    PERTURB,
    PRODUCTS,
    PerturbConfig,
    cases,
    disasters,
    latents,
    measure,
    verdict,
)
from pipefusion.core.parallel import Parallel
from pipefusion.sim.engine import RankFailed
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.faults import Faults, Kill
from tests.cases import TINY
from tests.contract.faulty import (
    AliasesKV,
    Faulty,
    ForgetsToWaitForGathers,
    ForgetsToWaitForReceives,
    ReceivesIntoOneBuffer,
    SendsWhatItGoesOnWriting,
    SkipsAGather,
    SwapsReceives,
)
from tests.experiments.commands import command

SMALL = PerturbConfig(steps=[3], devices=[2, 3], patches=[3, 4], warmups=[0, 1], products=[])
WITH_PRODUCTS = replace(SMALL, devices=[2], products=list(PRODUCTS))
MODEL = replace(model_config("pixart_tiny"), name="tiny", architecture=TINY | {"num_layers": 3})


def config(options: PerturbConfig = SMALL) -> RunConfig:
    return RunConfig(model=MODEL, method=METHODS["serial"].Config(), measure=options)


def case(method: str, devices: int, parallel: Parallel | None = None, **settings: Any) -> RunConfig:
    """One run of a method, three steps."""
    given = parallel or Parallel()
    prompts = [f"a tree {number}" for number in range(given.data)]
    own = METHODS[method].Config(**settings)
    one = replace(config(), method=own, devices=devices, parallel=given, prompt=prompts, steps=3)
    return replace(one, scheduler="dpmsolver++", guidance_scale=3.0)


@pytest.fixture(scope="module")
def session() -> Session:
    torch.set_num_threads(1)
    return Session()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.fast_cases(3)
def test_no_order_of_events_changes_the_result(session, name):
    found = cases(config(replace(SMALL, methods=[name])), Session())
    assert found
    for number, one in enumerate(found):
        want = latents(one, session, Faults())
        for seed in range(number, 12, len(found)):
            assert verdict(one, session, Faults(seed=seed), want) is None


def products() -> list[RunConfig]:
    return [one for one in cases(config(WITH_PRODUCTS), Session()) if one.parallel.axes]


def test_products_are_in_the_grid():
    """Each with one rank on the method's own axis and with two; a ring around a stale buffer in both its forms."""
    found = products()
    assert {one.method.name for one in found} == set(METHODS)
    piped = [one for one in found if one.method.name == "pipefusion" and one.parallel.ring > 1]
    own = {(one.devices, one.method.ring) for one in piped}
    assert own == {(devices, ring) for devices in (2, 4, 8) for ring in ("gather", "rotate")}


def test_seeds_are_dealt_and_one_can_be_replayed_alone():
    found = cases(config(), Session())
    dealt = [range(one.measure.first, 50, one.measure.stride) for one in found]
    assert sorted(seed for seeds in dealt for seed in seeds) == [*range(50)]
    (alone,) = cases(config(replace(SMALL, only=len(found) + 2)), Session())
    assert alone.method == found[2].method and alone.devices == found[2].devices


HANDFUL = [
    case("pipefusion", 4, Parallel(cfg=2), patches=3),
    case("pipefusion", 4, Parallel(data=2), patches=4, warmup=0),
    case("pipefusion", 4, Parallel(ulysses=2), patches=3),
    case("pipefusion", 4, Parallel(ring=2), patches=3, warmup=0, ring="rotate"),
    case("pipefusion", 6, Parallel(cfg=2), patches=2, order="rotational", forecast="taylor1"),
    case("pipefusion", 4, patches=4, order="rotational"),
    case("distrifusion", 4, Parallel(ulysses=2)),
    case("pcpp", 4, Parallel(ring=2)),
    case("ring", 4, Parallel(ulysses=2)),
    case("ring", 3, compress="int2"),
    case("pipefusion", 3, patches=2, compress="int1"),
    case("distrifusion", 2, compress="topk", sync_layers=[1]),
    case("sync_pipeline", 4, Parallel(tensor=2), micro_batches=True),
]


@pytest.mark.parametrize("one", HANDFUL, ids=lambda one: f"{one.method.name} {parallel_degrees(one)}")
@pytest.mark.fast_cases(2)
def test_no_order_of_events_changes_the_result_of_a_product(session, one):
    want = latents(one, session, Faults())
    for seed in range(3):
        assert verdict(one, session, Faults(seed=seed), want) is None


@pytest.mark.slow
def test_five_hundred_schedules_of_products():
    cfg = config(replace(WITH_PRODUCTS, patches=[3], schedules=500, kills=0))
    session = Session()
    for cell in study_cells(PERTURB, cfg, session):
        (row,) = measure(cell, session)
        assert row["failures"] == 0, row["reason"]


def test_a_killed_rank_of_a_product_is_named_with_its_place(session):
    with pytest.raises(RankFailed, match=r"^rank 5 \(cfg 1, pipe 2\): Killed"):
        latents(case("pipefusion", 6, Parallel(cfg=2), patches=3), session, Faults(kill=Kill(5, 3)))


def test_an_undisturbed_run_that_is_not_finite_is_no_reference(session):
    one = case("serial", 1)
    want = latents(one, session, Faults(seed=None))
    assert verdict(one, session, Faults(seed=1), want) is None
    assert "not finite" in str(verdict(one, session, Faults(seed=1), want * torch.inf))


def test_a_schedule_repeats_from_its_seed(session):
    """Not only the result: every wait is the same to the last bit, and another seed's are not."""

    def waits(seed: int) -> list[float]:
        fabrics: list[SimFabric] = []
        keep = lambda fabric: fabrics.append(fabric) or fabric  # noqa: E731
        latents(case("pipefusion", 3, patches=4), session, Faults(seed=seed), keep)
        return [entry.wait_s for fabric in fabrics for entry in fabric.ledger.entries]

    assert waits(5) == waits(5)
    assert waits(5) != waits(6)


@pytest.mark.slow
def test_killed_ranks_and_lost_messages_are_named(session):
    for index, one in enumerate([*cases(config(), Session())[1:], *HANDFUL]):
        assert disasters(one, session, index) == []


def test_a_disaster_that_nobody_notices_is_reported(session, monkeypatch):
    deaf = latents
    monkeypatch.setattr(
        "experiments.studies.perturb.latents",
        lambda cfg, session, faults, wrap=None: deaf(cfg, session, Faults(), wrap),
    )
    found = disasters(HANDFUL[0], session, 0)
    assert len(found) == 3 and all(text.endswith(": nothing") for text in found)
    assert "Drop(source=0, to=1, number=0)" in found[2]


PLANTED: list[tuple[type[Faulty], RunConfig, str]] = [
    (
        ForgetsToWaitForReceives,
        case("pipefusion", 3, patches=4),
        "missing wait|not finite|differ|overwritten",
    ),
    (ForgetsToWaitForReceives, case("ring", 3), "missing wait|not finite|overwritten"),
    (ForgetsToWaitForGathers, case("distrifusion", 3), "missing wait|not finite|differ"),
    (ForgetsToWaitForReceives, case("pcpp", 3), "missing wait|not finite|differ"),
    (SwapsReceives, case("pipefusion", 2, patches=4), "mismatched order"),
    (AliasesKV, case("pipefusion", 2, patches=4), "differ"),
    (ReceivesIntoOneBuffer, case("pipefusion", 3, patches=4), "not finite|differ|overwritten"),
    (SendsWhatItGoesOnWriting, case("ring", 2), "overwritten buffer"),
    (SkipsAGather, case("distrifusion", 3), "mismatched|deadlock"),
]


@pytest.mark.parametrize(
    ("bug", "one", "found_as"), PLANTED, ids=lambda value: getattr(value, "__name__", None)
)
@pytest.mark.fast_cases(3)
def test_planted_bugs_are_found_under_every_schedule(session, bug: Callable, one: RunConfig, found_as: str):
    want = latents(one, session, Faults())
    for seed in range(3):
        problem = verdict(one, session, Faults(seed=seed), want, wrap=bug)
        assert problem is not None, f"seed {seed}"
        assert re.search(found_as, problem), problem


def broken_build(*_: Any) -> Any:
    raise TypeError("no such argument")


def broken_sampler(*_: Any) -> Callable[..., Tensor]:
    return lambda noise, cond, scheduler: noise + noise[:, :, :-1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (broken_build, "TypeError: no such argument"),
        (broken_sampler, "RankFailed: rank 0: RuntimeError: The size"),
    ],
)
@pytest.mark.fast_cases(1)
def test_a_method_that_fails_undisturbed_is_the_first_finding(
    build: Callable[..., Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Recorded once for each of its cases, and the others are tried as ever."""
    monkeypatch.setitem(METHODS, "ring", replace(METHODS["ring"], build=build))
    few = ["schedules=12", "kills=1", "steps=[2]", "devices=[2]", "patches=[2]", "warmups=[1]", "products=[]"]
    chosen = [
        "experiment=perturb",
        "model=pixart_tiny",
        "measure.workers=1",
        *(f"measure.{key}" for key in few),
    ]
    assert command(monkeypatch, *chosen, "log.wandb.mode=disabled", f"hydra.run.dir={tmp_path}") == 1
    rows = load_study(tmp_path).rows.set_index("method")
    failed = rows.loc["ring"]
    assert failed.status == "failed" and f"undisturbed: {message}" in failed.reason and failed.schedules == 0
    others = rows.drop("ring")
    assert {*others.status} == {"ok"} and others.schedules.sum() == 12 - len(
        range(failed_at(rows), 12, len(rows))
    )
    error = capsys.readouterr().err
    assert error.count("undisturbed: ") == 1 and "measure.only=" in error and "Traceback" not in error


def failed_at(rows: Any) -> int:
    """The place of ring among the cases."""
    return [*rows.index].index("ring")
