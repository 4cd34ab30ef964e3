"""Tensor parallelism with the cross-attention split, and whole on every device: what each holds and reduces."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.cases import case_model
from tests.contract.oracle import STEPS, product
from tests.sampling import simulate


@pytest.mark.parametrize("model", ["pixart", "hunyuan_tiny", "flux_tiny"])
@pytest.mark.fast_cases(1)
def test_a_whole_cross_attention_is_held_by_every_device_and_reduced_by_none(model: str) -> None:
    split, whole = (
        simulate(product("tensor", "tensor 2", model, cross=cross))[0] for cross in ("split", "whole")
    )
    shape = case_model(product("tensor", "", model)).shape
    crossed = sum(block.cross_params for block in shape.blocks)
    assert (crossed > 0) == shape.cross
    more = whole.measured["param_bytes"] - split.measured["param_bytes"]
    assert more == crossed // 2 * shape.itemsize
    split_reduces, whole_reduces = (
        Counter((row["step"], row["layer"]) for row in found.rows if row["op"] == "all_reduce")
        for found in (split, whole)
    )
    assert split_reduces - whole_reduces == Counter(
        (step, layer) for step in range(STEPS) for layer in range(shape.layers) if shape.cross
    )
    if shape.cross:  # as Table 1 counts: one attention and one MLP a block
        assert set(whole_reduces.values()) == {2}
