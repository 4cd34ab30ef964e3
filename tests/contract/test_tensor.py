"""Tensor parallelism with the cross-attention split, and whole on every device: exact, and its bytes as predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.cases import Case, Result, model_of, relative_error, sample, simulate
from tests.contract.test_invariants import TOLERANCE, bytes_agree
from tests.contract.test_worlds import agree
from tests.ranks import Ranks

CROSSES = ("split", "whole")
MODELS = ("pixart", "hunyuan_tiny", "flux_tiny")
SETTING = {"guidance": 4.5, "images": 2}


def run(ranks: Callable[[int], Ranks], case: Case) -> list[Result]:
    return ranks(2).run(sample, case, 2)


def case_of(model: str, cross: str, peak: bool = False) -> Case:
    return Case("tensor", {"cross": cross}, model=model, peak=peak, **SETTING)


@pytest.mark.parametrize("model", MODELS)
def test_both_equal_serial_and_their_closed_forms(ranks, model):
    want = ranks(1).run(sample, Case("serial", model=model, **SETTING))[0].latents
    for cross in CROSSES:
        case = case_of(model, cross, peak=True)
        results = run(ranks, case)
        assert relative_error(results[0].latents, want) <= TOLERANCE, cross
        bytes_agree(case, results)


@pytest.mark.parametrize("model", MODELS)
def test_a_whole_cross_attention_is_held_by_every_device_and_reduced_by_none(ranks, model):
    split, whole = (run(ranks, case_of(model, cross))[0] for cross in CROSSES)
    shape = model_of(Case("tensor", model=model)).shape
    crossed = sum(block.cross_params for block in shape.blocks)
    assert (crossed > 0) == shape.cross
    more = whole.measured["param_bytes"] - split.measured["param_bytes"]
    assert more == crossed // 2 * shape.itemsize
    split_reduces, whole_reduces = (
        Counter((row["step"], row["layer"]) for row in found.rows if row["op"] == "all_reduce")
        for found in (split, whole)
    )
    assert split_reduces - whole_reduces == Counter(
        (step, layer) for step in range(4) for layer in range(shape.layers) if shape.cross
    )
    if shape.cross:  # as Table 1 counts: one attention and one MLP a block
        assert set(whole_reduces.values()) == {2}


@pytest.mark.parametrize("cross", CROSSES)
def test_local_and_sim_agree(ranks, cross):
    case = case_of("pixart", cross)
    agree(case, run(ranks, case), simulate(case.on(2), images=2))
