"""What PCPP exchanges with whom and when; the invariants of all methods are tests/contract's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from baselines import pcpp
from pipefusion.core.parallel import Parallel
from tests.cases import Case, case_model
from tests.sampling import simulate

SHAPE = case_model(Case("pcpp")).shape  # 12 rows of 4 tokens


def test_two_whole_bands_are_distrifusion():
    """Of two bands each is the other's only neighbour: to the last bit the same."""
    ours, others = (
        simulate(Case(name, {"warmup": 1} | own, guidance=4.5).on(2))[0].latents
        for name, own in (("pcpp", {"fraction": 1}), ("distrifusion", {}))
    )
    assert torch.equal(ours, others)


def test_after_the_warm_up_neighbours_exchange_their_edges_and_wait_a_step_later():
    results = simulate(Case("pcpp", {"warmup": 1, "fraction": 0.5}).on(4))
    edge = 2 * 2 * 4 * 48 * 4  # K, V of two of three rows, float32
    for rank, result in enumerate(results):
        peers = {peer for peer in (rank - 1, rank + 1) if 0 <= peer < 4}
        inside = [row for row in result.rows if row["layer"] >= 0]
        first = [row for row in inside if row["step"] == 0]
        assert [(row["op"], row["async"]) for row in first] == [("all_gather", False)] * SHAPE.layers
        later = [row for row in inside if row["step"] > 0]
        assert {row["step"] for row in later} == {1, 2}, "the last of four steps sends nothing"
        assert {(row["op"], row["peer"]) for row in later} == {
            (op, p) for op in ("send", "recv") for p in peers
        }
        assert all(row["async"] and row["sent_bytes"] + row["recv_bytes"] == edge for row in later)
        assert result.measured["kv_bytes"] == len(peers) * edge * SHAPE.layers


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, float("nan")])
def test_a_fraction_is_a_part_of_a_band(fraction):
    problem = pcpp.check(SHAPE, Parallel(patch=4), 4, pcpp.Config(fraction=fraction))
    assert problem is not None and problem.key == "method.fraction"
    assert problem.message.endswith("allowed: above 0, at most 1")
    assert pcpp.check(SHAPE, Parallel(patch=4), 4, pcpp.Config(fraction=1)) is None


@pytest.mark.parametrize(
    ("rows", "fraction", "shared"),
    [(100, 0.07, 7), (100, 0.071, 8), (10, 0.3, 3), (3, 0.5, 2), (1, 0.01, 1), (7, 1, 7)],
)
def test_rows_are_rounded_up(rows, fraction, shared):
    shape = replace(SHAPE, token_rows=2 * rows)
    assert pcpp.shared_rows(shape, 2, pcpp.Config(fraction=fraction)) == shared
