"""Automatic warm-up: the same W on all ranks, whoever shares the work, and nothing else than a run with this W."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.methods import METHODS
from tests.cases import Case, case_model, relative_error
from tests.contract.oracle import TOLERANCE, product, serial
from tests.contract.test_reference import task
from tests.contract.test_worlds import agree
from tests.ranks import Ranks
from tests.reference import guide
from tests.sampling import sample, simulate

STEPS = 8
CASES = [
    ("pipefusion", "pipe 2", {"M": 3}),
    ("pipefusion", "cfg 2 pipe 3 ulysses 2", {"M": 2}),
    ("pipefusion", "pipe 3", {"M": 2, "micro_batches": True}),
    ("pipefusion", "data 2 pipe 2", {"M": 4}),
    ("distrifusion", "patch 2 ring 2", {}),
    ("naive_patch", "cfg 2 patch 3", {}),
    ("pcpp", "data 2 patch 2 tensor 2", {}),
]


@cache
def changes() -> list[float]:
    """The relative change of the guided prediction of each step but the first, of a loop over the stock model."""
    case = product("serial").but(steps=STEPS)
    network, scheduler, latent, text, mask, guidance = task(case)
    found: list[Tensor] = []
    with torch.inference_mode():
        for time in scheduler.timesteps:
            given = {
                "encoder_hidden_states": text,
                "encoder_attention_mask": mask,
                "timestep": time.expand(4),
            }
            found.append(guide(network(torch.cat([latent] * 2), **given, return_dict=False)[0], guidance))
            latent = scheduler.step(found[-1], time, latent, return_dict=False)[0]
    return [float((new - old).abs().mean() / old.abs().mean()) for old, new in pairwise(found)]


def threshold() -> float:
    """Between the first change and the second, so that step 2 is the last synchronous one."""
    assert changes()[1] < changes()[0]
    return (changes()[1] + changes()[0]) / 2


def automatic(name: str, degrees: str, threshold: float, **own: Any) -> Case:
    return product(name, degrees, W="auto", warmup_threshold=threshold, **own).but(steps=STEPS)


@pytest.mark.parametrize(("name", "degrees", "own"), CASES)
@pytest.mark.fast_cases(2)
def test_the_steps_are_those_of_a_run_with_this_warmup(name: str, degrees: str, own: dict[str, Any]) -> None:
    """The step whose prediction has changed less than the threshold is the last; two numbers decide, a byte tells."""
    w = 3
    case = automatic(name, degrees, threshold(), **own)
    results, fixed = simulate(case), simulate(product(name, degrees, W=w, **own).but(steps=STEPS))
    assert {result.warmup for result in results} == {w}
    assert results[0].latents is not None and torch.equal(results[0].latents, fixed[0].latents)
    for one, other in zip(results, fixed, strict=True):
        layers = case_model(case).shape.layers
        last = one.layers.stop == layers
        sums = (
            sum(2 * 16 * (n - 1) // n for axis, n in case.parallel.axes.items() if axis != "pipe")
            if last
            else 0
        )
        stages = case.parallel.pipe
        decisions = (
            stages > 1 and [*{each.layers.start: 0 for each in results}].index(one.layers.start) != stages - 2
        )
        assert one.measured["sent_bytes"] - other.measured["sent_bytes"] == (w - 1) * (sums + decisions)


@pytest.mark.parametrize(("name", "degrees", "own"), CASES[::2])
@pytest.mark.fast_cases(1)
def test_thresholds_at_both_ends(name: str, degrees: str, own: dict[str, Any]) -> None:
    """Zero: all steps are synchronous; a large one: the first two, of which the change is."""
    never, at_once = (simulate(automatic(name, degrees, threshold, **own)) for threshold in (0.0, 1000.0))
    assert never[0].warmup == STEPS and at_once[0].warmup == 2
    assert relative_error(never[0].latents, serial(product(name, degrees).but(steps=STEPS))) <= TOLERANCE


def test_real_ranks_find_the_same(ranks: Ranks) -> None:
    for name, degrees, own in (CASES[0], CASES[3]):
        case = automatic(name, degrees, threshold(), **own)
        real, virtual = ranks.run(case.parallel.world, sample, case), simulate(case)
        agree(case, real, virtual)
        assert [result.warmup for result in real] == [result.warmup for result in virtual]


@pytest.mark.parametrize(
    ("name", "model", "warmup", "key"),
    [("pipefusion", "hunyuan_tiny", "auto", "a number"), ("pcpp", "pixart", "automatic", "0..3, auto")],
)
def test_what_cannot_be_is_refused(name: str, model: str, warmup: str, key: str) -> None:
    case = product(name, "", model, W=warmup).on(2)
    method = METHODS[name]
    problem = method.check(case_model(case).shape, case.parallel, case.steps, method.Config(**case.method))
    assert problem is not None and problem.key == "method.warmup"
    assert problem.message.endswith(f"allowed: {key}")
