"""Linear attention and convolutions (SANA) against a loop that keeps K, V and the convolved rows of all tokens."""

from __future__ import annotations

import pytest
from torch import Tensor

from experiments.conformance.reference import Buffers, denoise
from experiments.conformance.request import Deviation, Request
from experiments.methods import METHODS
from pipefusion.core.convolution import alone
from pipefusion.core.split import split_rows
from tests.cases import (
    CPU,
    Case,
    case_model,
    case_scheduler,
    case_view,
    case_weights,
    inputs,
    problem,
    relative_error,
)
from tests.contract.oracle import TOLERANCE, product
from tests.sampling import simulate


def loop(case: Case) -> Tensor:
    """Latents by the conformance kit's loop, which knows neither sums nor edges."""
    model, method, view = case_model(case), METHODS[case.name], case_view(case)
    view.load(case_weights(case), CPU)
    count = case.method.get("patches", case.parallel.patch)
    bands = split_rows(model.shape.lines, count, case.parallel.lanes)
    task = *inputs(case, model), case_scheduler(case), bands, [range(model.shape.layers)]
    synced = case.method.get("sync_layers", ())
    request = Request(*task, case.method["warmup"], "exact", synced=synced)
    return denoise(view, request, Deviation(kv=method.stale))[-1]


@pytest.mark.parametrize(
    ("name", "degrees", "own"),
    [
        ("pipefusion", "pipe 2", {"M": 5, "W": 0}),
        ("pipefusion", "cfg 2 pipe 2 ring 2 ulysses 2", {"M": 2, "W": 1}),  # rows 0..8 and 8..12
        ("pipefusion", "pipe 2 ulysses 2", {"M": 3, "W": 2, "micro_batches": True}),
        ("distrifusion", "patch 3", {"W": 0}),
        ("distrifusion", "patch 2 ulysses 2 tensor 2", {"W": 1, "sync_layers": [0, 3]}),
        ("naive_patch", "patch 2 ring 3", {"W": 1}),
    ],
)
@pytest.mark.fast_cases(2)
def test_what_is_stale_of_sums_and_edges(name, degrees, own, monkeypatch):
    case = product(name, degrees, "sana_tiny", **own)
    got = simulate(case)[0].latents
    assert relative_error(got, loop(case)) <= TOLERANCE
    monkeypatch.setattr(Buffers, "convolve_for", lambda *_: alone)  # without a halo
    assert relative_error(got, loop(case)) > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("name", "own", "key"),
    [
        ("pcpp", {"W": 1}, "method"),
        ("pipefusion", {"ring": "rotate"}, "method.ring"),
        ("ring", {"compress": "int2"}, "method.compress"),
        ("distrifusion", {"compress": "topk"}, "method.compress"),
    ],
)
def test_what_is_done_to_k_and_v_is_refused(name, own, key):
    found = problem(product(name, "", "sana_tiny", **own))
    assert found is not None and found.key == key and "linear attention" in found.message


def test_tensor_ranks_divide_the_heads_of_both_attentions():
    case = product("tensor", "tensor 3", "sana_tiny").but(architecture={"num_cross_attention_heads": 4})
    found = problem(case)
    assert found is not None and "heads of the cross-attention; allowed: 1, 2, 4" in found.message
