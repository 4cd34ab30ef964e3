"""Q, K, V of Ulysses ranks in one all-to-all, and in one each: the same latents and bytes, twice as many calls."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests.cases import Case, case_model
from tests.contract.oracle import check, product

CASES = [
    product("ulysses", "ulysses 2"),
    product("ulysses", "ulysses 4", "flux_tiny"),  # the prompt shared out as well
    product("ring", "ring 2 ulysses 2", "sd3_tiny"),
    product("pipefusion", "pipe 2 ulysses 2", M=3),
    product("distrifusion", "patch 2 ulysses 2", W=1),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.fast_cases(2)
def test_separate_calls_change_nothing_but_their_number(case: Case) -> None:
    """`check` holds both to serial, or to the method alone, and to the closed forms of bytes."""
    separate = case.but(method=case.method | {"qkv": "separate"})
    one, four = check(case), check(separate)
    for packed, apart in zip(one, four, strict=True):
        assert packed.measured["sent_bytes"] == apart.measured["sent_bytes"]
        if packed.latents is not None:
            assert torch.equal(packed.latents, apart.latents)
    calls = [
        Counter(
            (row["step"], row["patch"], row["layer"]) for row in ranks[0].rows if row["op"] == "all_to_all"
        )
        for ranks in (one, four)
    ]
    layers = case_model(case).shape.layers // case.parallel.pipe
    assert {layer for _, _, layer in calls[0]} == set(range(layers))
    assert calls[0].keys() == calls[1].keys()
    assert {*calls[0].values()} == {2}
    assert {*calls[1].values()} == {4}
