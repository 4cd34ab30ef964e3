"""Every method on every architecture: the same invariants, on one setting each. `test_invariants.py` has the grid.

Guidance and a batch of two are on; what distinguishes the families are streams of text, skips and rotary positions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from torch import Tensor

from experiments.methods import METHODS
from tests.cases import FAMILIES, Case, model_of, relative_error, sample
from tests.contract.test_invariants import DISPLACED, EXACT, PATCHED, SPLIT, TOLERANCE, bytes_agree, run
from tests.ranks import Ranks

JOINT = [name for name in FAMILIES if model_of(Case("serial", model=name)).shape.joint]
SETTING = {"guidance": 4.5, "images": 2}
TWO_OR_THREE = [pytest.param(2, marks=pytest.mark.slow), 3]


@pytest.fixture(scope="module")
def serial(ranks: Callable[[int], Ranks]):
    @cache
    def latents(family: str) -> Tensor:
        return ranks(1).run(sample, Case("serial", model=family, **SETTING))[0].latents

    return latents


# SD3.5 is SD3 with norms that test_views.py has seen.
@pytest.fixture(params=[name for name in FAMILIES if name != "sd35_tiny"], scope="module")
def family(request) -> str:
    return request.param


def case_of(family: str, name: str, **method) -> Case:
    return Case(name, method, model=family, **SETTING)


@pytest.mark.parametrize("devices", TWO_OR_THREE)
@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_equal_serial(ranks, serial, family, name, devices):
    results = run(ranks, devices, case_of(family, name))
    assert relative_error(results[0].latents, serial(family)) <= TOLERANCE


@pytest.mark.parametrize("devices", TWO_OR_THREE)
@pytest.mark.parametrize("name", DISPLACED)
def test_all_steps_synchronous_equals_serial(ranks, serial, family, name, devices):
    results = run(ranks, devices, case_of(family, name, warmup=4))
    assert relative_error(results[0].latents, serial(family)) <= TOLERANCE


@pytest.mark.parametrize("name", DISPLACED)
def test_staleness_is_real(ranks, serial, family, name):
    results = run(ranks, 3, case_of(family, name, warmup=1))
    assert relative_error(results[0].latents, serial(family)) > 10 * TOLERANCE


@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("name", PATCHED)
def test_one_patch_equals_serial(ranks, serial, family, name, devices, warmup):
    results = run(ranks, devices, case_of(family, name, patches=1, warmup=warmup))
    assert relative_error(results[0].latents, serial(family)) <= TOLERANCE


@pytest.mark.parametrize(("patches", "warmup"), [(2, 0), (5, 1)])
@pytest.mark.parametrize("name", PATCHED)
def test_result_does_not_depend_on_devices(ranks, family, name, patches, warmup):
    case = case_of(family, name, patches=patches, warmup=warmup)
    alone = run(ranks, 1, case)[0].latents
    for devices in (2, 4):
        assert relative_error(run(ranks, devices, case)[0].latents, alone) <= TOLERANCE


@pytest.mark.parametrize("split", ["ceil", "cost", "bytes", "list"])
@pytest.mark.parametrize("name", SPLIT)
def test_split_does_not_change_the_result(ranks, serial, family, name, split):
    layers = model_of(Case(name, model=family)).shape.layers
    sizes = [1, layers - 2, 0, 1] if split == "list" else split
    method = {"split": sizes} | ({"patches": 1} if name in PATCHED else {})
    results = run(ranks, 4, case_of(family, name, **method))
    assert relative_error(results[0].latents, serial(family)) <= TOLERANCE
    assert [layer for result in results for layer in result.layers] == list(range(layers))
    if split == "list":
        assert [len(result.layers) for result in results] == sizes


@pytest.mark.parametrize("devices", [pytest.param(3, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("name", METHODS)
def test_measured_bytes_equal_closed_forms(ranks, family, name, devices):
    case = case_of(family, name, **({"patches": 5} if name in PATCHED else {})).but(peak=devices == 3)
    bytes_agree(case, run(ranks, devices, case, images=2 if case.peak else 1))


@pytest.mark.parametrize("size", [(12, 7), (9, 16)])
@pytest.mark.parametrize("name", METHODS)
def test_a_picture_that_is_not_square(ranks, name, size):
    """Equal to serial with nothing stale, its bytes as predicted, its peak as planned."""
    case = case_of("sd3_tiny", name, **({"warmup": 4} if METHODS[name].has("warmup") else {})).but(size=size)
    alone = run(ranks, 1, case.but(name="serial", method={}))[0].latents
    assert alone.shape[2:] == tuple(2 * side for side in size)
    results = run(ranks, 3, case := case.but(peak=True))
    assert relative_error(results[0].latents, alone) <= TOLERANCE
    bytes_agree(case, results)


@pytest.mark.parametrize(("family", "devices"), [(name, n) for name in JOINT for n in (2, 4)])
def test_published_treatment_of_the_prompt(ranks, serial, family, devices):
    """`first_patch` sends less, is another result that depends on N, and still equals serial with nothing stale."""
    loud = case_of(family, "pipefusion", patches=3).but(gain=2.0)  # random prompts hardly matter otherwise
    cases = [loud.but(method={"patches": 3, "text": text}) for text in ("exact", "first_patch")]
    exact, partial = (run(ranks, devices, case) for case in cases)
    bytes_agree(cases[1], partial)
    assert partial[0].measured["sent_bytes"] < exact[0].measured["sent_bytes"]
    assert relative_error(partial[0].latents, exact[0].latents) > 100 * TOLERANCE
    for still in ({"patches": 1}, {"patches": 3, "warmup": 4}):
        got = run(ranks, devices, case_of(family, "pipefusion", text="first_patch", **still))
        assert relative_error(got[0].latents, serial(family)) <= TOLERANCE


def test_skips_go_straight_to_their_mirror(ranks):
    """HunyuanDiT of 8 layers on 4 stages: layers 0, 1, 2 give to 7, 6, 5 -- stage 0 to 3, and 1 to 2."""
    case = case_of("hunyuan_tiny", "pipefusion", patches=2)
    rows = [row for result in run(ranks, 4, case) for row in result.rows]
    sent = {
        (row["rank"], row["peer"], row["layer"]) for row in rows if row["op"] == "send" and row["layer"] >= 0
    }
    assert sent == {(0, 3, 0), (0, 3, 1), (1, 2, 2)}
