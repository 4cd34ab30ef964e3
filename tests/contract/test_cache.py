"""Step caches on every method: who shares the work changes neither what is skipped nor what comes out."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import pipefusion.core.change as change
from experiments.methods import METHODS
from pipefusion.core.parallel import Parallel
from pipefusion.core.split import split_rows
from pipefusion.sim.engine import SimulationError
from tests.cases import Case, case_model, relative_error
from tests.contract.oracle import (
    ARCHITECTURES,
    TOLERANCE,
    alone,
    product,
    sends_and_holds_what_is_predicted,
)
from tests.contract.test_reference import task
from tests.contract.test_worlds import agree
from tests.ranks import Ranks
from tests.reference_cache import cached
from tests.sampling import planned, sample, simulate

RULES = ("fbcache", "teacache")
STEPS = 8


def skipping(
    name: str, degrees: str = "", model: str = "pixart", rule: str = "fbcache", **method: Any
) -> Case:
    """A product whose cache skips some of the jobs that it decides on, and computes others."""
    threshold = method.pop("threshold", 0.1)
    own = product(name, degrees, model, cache=rule, cache_threshold=threshold, **method)
    return own.but(steps=STEPS)


ran = cache(simulate)


def decisions(case: Case) -> dict[Any, bool]:
    """What all ranks have decided."""
    first, *others = [result.decisions for result in ran(case)]
    assert first and all(each == first for each in others)
    return first


@pytest.mark.parametrize(("name", "own"), [("pipefusion", {"patches": 4}), ("distrifusion", {})])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.fast_cases(2)
def test_a_plan_skips_the_share_that_it_is_told(rule: str, name: str, own: dict[str, int]) -> None:
    """Of ten steps the first and the last are computed, and of the eight between them so many; each saves time."""
    seconds = []
    for share in (1.0, 0.5, 0.0):
        method = {**own, "cache": rule, "cache_computed": share}
        ranks = planned(Case(name, method, steps=10, guidance=4.5), 2)
        assert {rank.ledger.computed_steps for rank in ranks} == {2 + 8 * share}
        seconds.append(max(rank.total_s for rank in ranks))
    assert seconds[0] > seconds[1] > seconds[2]


REFERENCES = [
    ("serial", "", 1, 0),
    ("pipefusion", "pipe 2", 3, 1),
    ("pipefusion", "pipe 3", 4, 0),
    ("distrifusion", "patch 3", 3, 1),
    ("distrifusion", "patch 2", 2, 0),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "degrees", "patches", "warmup"), REFERENCES)
@pytest.mark.fast_cases(5)
def test_loops(rule: str, name: str, degrees: str, patches: int, warmup: int) -> None:
    """Against the equations in loops."""
    given = {"M": patches, "W": warmup}
    own = {key: given[key] for key in ("M", "W") if METHODS[name].has({"M": "patches", "W": "warmup"}[key])}
    case = skipping(name, degrees, rule=rule, **own)
    got = ran(case)[0]
    bands = [list(band) for band in split_rows(case_model(case).shape.token_rows, patches)]
    with torch.inference_mode():
        options = warmup, rule, case.method["cache_threshold"], name == "distrifusion"
        want, computed = cached(task(case), bands, *options)
    assert {(at.step, at.patch): made for at, made in got.decisions.items()} == computed
    assert {*computed.values()} == {True, False}, "nothing is skipped, or all"
    assert relative_error(got.latents, want) <= TOLERANCE


EXACT = [
    ("ulysses", "ulysses 2", {}),
    ("ring", "ring 3", {}),
    ("tensor", "cfg 2 tensor 2", {}),
    ("sync_pipeline", "cfg 2 pipe 3", {}),
    ("pipefusion", "pipe 2 ulysses 2", {"M": 1}),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "degrees", "own"), EXACT)
@pytest.mark.fast_cases(4)
def test_exact_methods_are_serial_with_its_cache(
    rule: str, name: str, degrees: str, own: dict[str, int]
) -> None:
    case, serial = skipping(name, degrees, rule=rule, **own), skipping("serial", rule=rule)
    assert decisions(case) == decisions(serial)
    assert {*decisions(serial).values()} == {True, False}
    assert relative_error(ran(case)[0].latents, alone(serial)) <= TOLERANCE


BANDED = [
    ("pipefusion", "cfg 2 pipe 2", {"M": 3}),
    ("pipefusion", "pipe 3 ring 2", {"M": 2, "ring": "rotate"}),
    ("distrifusion", "patch 2 ulysses 2", {"sync_layers": [2]}),
    ("pcpp", "cfg 2 patch 3", {}),
    ("naive_patch", "patch 2 tensor 2", {}),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "degrees", "own"), BANDED)
@pytest.mark.fast_cases(4)
def test_displaced_methods_depend_on_their_bands_alone(
    rule: str, name: str, degrees: str, own: dict[str, Any]
) -> None:
    case = skipping(name, degrees, rule=rule, W=1, **own)
    few = case.but(parallel=Parallel(patch=case.parallel.patch))
    assert decisions(case) == decisions(few)
    assert not all(decisions(case).values())
    assert relative_error(ran(case)[0].latents, alone(few)) <= TOLERANCE


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", ARCHITECTURES[1:])
@pytest.mark.fast_cases(8)
def test_families(rule: str, model: str) -> None:
    """Prompts beside the image, refiners, single blocks, long skips: some steps are skipped, by all ranks alike."""
    threshold = 1000.0  # random models differ: all that may be skipped is
    axis = "ulysses 2" if case_model(Case("serial", model=model)).shape.skips else "pipe 2 ulysses 2"
    serial = skipping("serial", "", model, rule, threshold=threshold).but(steps=4)
    name = "ulysses" if axis == "ulysses 2" else "sync_pipeline"
    case = skipping(name, axis, model, rule, threshold=threshold).but(steps=4)
    assert [*decisions(case).values()] == [True, False, False, True]
    assert relative_error(ran(case)[0].latents, alone(serial)) <= TOLERANCE
    without = serial.but(method={})
    assert relative_error(alone(serial), alone(without)) > 10 * TOLERANCE


ALL = [
    *EXACT,
    *BANDED,
    ("serial", "cfg 2", {}),
    ("pipefusion", "data 2 cfg 2 pipe 2 ulysses 2", {"M": 3}),
    ("pipefusion", "pipe 4", {"M": 3, "split": [2, 1, 0, 1]}),
    ("ring", "ring 2", {"compress": "int4"}),
    ("pipefusion", "pipe 3", {"M": 2, "compress": "topk"}),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "degrees", "own"), ALL)
@pytest.mark.fast_cases(8)
def test_a_threshold_of_zero_changes_nothing_but_decides(
    rule: str, name: str, degrees: str, own: dict[str, Any]
) -> None:
    """To the bit; and what it sends and holds, decisions included, is what is predicted to the byte."""
    case = skipping(name, degrees, rule=rule, threshold=0.0, **own).but(steps=5)
    plain = case.but(method={k: v for k, v in case.method.items() if "cache" not in k})
    latents = ran(case)[0].latents
    assert latents is not None and torch.equal(latents, alone(plain))
    assert all(decisions(case).values())
    sends_and_holds_what_is_predicted(ran(case))


def test_a_skipped_step_sends_what_its_first_block_does() -> None:
    """Ulysses: 4/n of the hidden states of one layer in place of four, and two numbers for every decision."""
    case = skipping("ulysses", "ulysses 2", threshold=1000.0)
    sent = dict.fromkeys(range(STEPS), 0)
    for row in ran(case)[0].rows:
        if row["step"] < STEPS:
            sent[row["step"]] += row["sent_bytes"]
    decision = 2 * 8
    assert sent[0] == sent[STEPS - 1] > 0
    assert {sent[step] for step in range(1, STEPS - 1)} == {sent[0] // 4 + decision}


@pytest.mark.slow
def test_real_ranks_skip_what_simulated_ones_do(ranks: Ranks) -> None:
    for case in (
        skipping("pipefusion", "pipe 2 ulysses 2", M=3),
        skipping("distrifusion", "patch 2", rule="teacache"),
    ):
        real, virtual = ranks.run(case.parallel.world, sample, case), ran(case)
        agree(case, real, virtual)
        assert [result.decisions for result in real] == [result.decisions for result in virtual]


@pytest.mark.parametrize(
    ("name", "degrees"),
    [("ulysses", "ulysses 2"), ("pipefusion", "pipe 2 ulysses 2"), ("naive_patch", "patch 3")],
)
def test_ranks_that_decide_for_themselves_are_named(
    name: str, degrees: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing would hang: bands that exchange nothing any more."""
    case = skipping(name, degrees, threshold=0.13)
    decisions(case)
    monkeypatch.setattr(change, "SHARED_BY", ())
    with pytest.raises(
        SimulationError, match=r"^ranks disagree about step \d.*: \d.* compute it, \d.* skip it$"
    ):
        simulate(case)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_decides_or_refuses(name: str) -> None:
    """No method takes the setting and computes all the same."""
    case = product(name, cache="fbcache").on(2 if METHODS[name].axis else 1)
    method, shape = METHODS[name], case_model(case).shape
    problem = method.check(shape, case.parallel, case.steps, method.Config(**case.method))
    if problem is None:
        assert decisions(case)
    else:
        assert problem.key == "method.cache" and "allowed: none" in problem.message
