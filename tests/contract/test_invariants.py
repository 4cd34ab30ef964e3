"""Every method in the table against the invariants of its kind. A new row in the table is tested without a word here.

A method that is `exact` must equal serial always. One that is not is displaced: it must equal serial when every step
is synchronous. One with a `patches` key must equal serial for a single patch, and may not depend on the number of
devices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from torch import Tensor

from experiments.methods import METHODS
from tests.cases import Case, Result, model_of, planned, relative_error, sample
from tests.ranks import Ranks

TOLERANCE = 1e-5
DEVICES = (1, 2, 3, 4)
SETTINGS = {
    "dpm": {},
    "dpm-guided-batch": {"guidance": 4.5, "images": 2},
    "ddim-guided": {"scheduler": "ddim", "guidance": 3.0},
    "euler": {"scheduler": "flow_euler"},
}
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in ("dpm", "ddim-guided"))) for name in SETTINGS]
DISPLACED = [name for name in METHODS if not METHODS[name].exact]
EXACT = [name for name in METHODS if METHODS[name].exact and name != "serial"]
PATCHED = [name for name in METHODS if METHODS[name].has("patches")]
SPLIT = [name for name in METHODS if METHODS[name].has("split")]


@pytest.fixture(scope="module")
def serial(ranks: Callable[[int], Ranks]):
    @cache
    def latents(setting: str) -> Tensor:
        return ranks(1).run(sample, Case("serial", **SETTINGS[setting]))[0].latents

    return latents


def run(ranks: Callable[[int], Ranks], devices: int, case: Case, images: int = 1) -> list[Result]:
    module, shape = METHODS[case.name], model_of(case).shape
    problem = module.problem(shape, devices, case.steps, module.Config(**case.method), case.parallel)
    if problem:
        pytest.skip(f"{problem.key}: {problem.message}")
    return ranks(devices).run(sample, case, images)


def bytes_agree(case: Case, results: list[Result]) -> None:
    """Parameters, KV, buffers, sent and received bytes of every rank, and its peak where it is asked for."""
    for rank, result in enumerate(results):
        predicted = {key: result.predicted[key] for key in result.measured}
        assert result.measured == predicted, f"rank {rank}"
    if case.peak:
        peaks = [rank.meter.peak_bytes for rank in planned(case, len(results))]
        assert [result.peak_bytes for result in results] == peaks
    sent = sum(row["sent_bytes"] for result in results for row in result.rows)
    assert sent == sum(row["recv_bytes"] for result in results for row in result.rows)


@pytest.mark.parametrize("setting", EACH)
@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_equal_serial(ranks, serial, name, devices, setting):
    results = run(ranks, devices, Case(name, **SETTINGS[setting]))
    assert relative_error(results[0].latents, serial(setting)) <= TOLERANCE


@pytest.mark.parametrize("setting", EACH)
@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("name", DISPLACED)
def test_all_steps_synchronous_equals_serial(ranks, serial, name, devices, setting):
    results = run(ranks, devices, Case(name, {"warmup": 4}, **SETTINGS[setting]))
    assert relative_error(results[0].latents, serial(setting)) <= TOLERANCE


@pytest.mark.parametrize("warmup", [0, 1])
@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("name", DISPLACED)
def test_staleness_is_real(ranks, serial, name, devices, warmup):
    """A displaced method that equals serial with stale steps is not displaced: the tests above would prove nothing."""
    results = run(ranks, devices, Case(name, {"warmup": warmup}), images=2)
    assert relative_error(results[0].latents, serial("dpm")) > 1e-4


@pytest.mark.parametrize("warmup", [0, 1, 3])
@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("name", PATCHED)
def test_one_patch_equals_serial(ranks, serial, name, devices, warmup):
    results = run(ranks, devices, Case(name, {"patches": 1, "warmup": warmup}))
    assert relative_error(results[0].latents, serial("dpm")) <= TOLERANCE


@pytest.mark.parametrize("setting", EACH)
@pytest.mark.parametrize(("patches", "warmup"), [(2, 0), (3, 1), (5, 1), (12, 2)])
@pytest.mark.parametrize("name", PATCHED)
def test_result_depends_on_patches_and_warmup_but_not_on_devices(ranks, name, patches, warmup, setting):
    case = Case(name, {"patches": patches, "warmup": warmup}, **SETTINGS[setting])
    alone = run(ranks, 1, case)[0].latents
    for devices in (2, 3, 4):
        assert relative_error(run(ranks, devices, case)[0].latents, alone) <= TOLERANCE


@pytest.mark.parametrize("split", ["ceil", "even", "cost"])
@pytest.mark.parametrize("name", SPLIT)
def test_split_does_not_change_the_result(ranks, name, split):
    """5 layers on 4 devices; `ceil` gives 2, 2, 1, 0: an empty last stage."""
    five = {"num_layers": 5}
    want = run(
        ranks,
        1,
        Case(name, architecture=five)
        if name not in PATCHED
        else Case(name, {"patches": 3}, architecture=five),
    )
    method = {"split": split} | ({"patches": 3} if name in PATCHED else {})
    results = run(ranks, 4, Case(name, method, architecture=five))
    assert relative_error(results[0].latents, want[0].latents) <= TOLERANCE
    covered = [layer for result in results for layer in result.layers]
    assert covered == list(range(5))
    if split == "ceil":
        assert [len(result.layers) for result in results] == [2, 2, 1, 0]


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 4.5])
@pytest.mark.parametrize("name", METHODS)
def test_measured_bytes_equal_closed_forms(ranks, name, devices, guidance):
    method = {"patches": 5} if name in PATCHED else {}
    peak = devices in (1, 3)  # counted once more with every operation seen, which takes time
    case = Case(name, method, guidance=guidance, images=2, peak=peak)
    results = run(ranks, devices, case, images=2)
    bytes_agree(case, results)
    if devices == 1:
        assert results[0].measured["sent_bytes"] == 0
