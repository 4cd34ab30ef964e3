"""Transfers overlap compute: receives are posted before, and sends are not waited for right after, they are needed."""

from __future__ import annotations

import itertools

import torch

from pipefusion.core.ledger import Where
from pipefusion.core.local import LocalFabric
from pipefusion.core.mesh import Mesh
from tests.cases import Case
from tests.ranks import Ranks
from tests.sampling import simulate


def test_pipefusion_posts_the_next_receive_before_it_sends_the_present_result():
    """On a middle stage the ledger must read recv(j+1) before send(j): the receive is under way while j computes."""
    rows = simulate(Case("pipefusion", {"patches": 4, "warmup": 1}).on(3))[1].rows
    assert all(row["async"] for row in rows)
    order = [(row["op"], (row["step"], row["patch"])) for row in rows]
    sends = [place for op, place in order if op == "send"]
    for present, following in itertools.pairwise(sends):
        assert order.index(("recv", following)) < order.index(("send", present))


def test_bytes_of_a_stage_per_step_are_the_hidden_states_once():
    """p * hs * batch * itemsize from every stage but the last, whatever M is."""
    for patches in (1, 4, 12):
        results = simulate(Case("pipefusion", {"patches": patches}, guidance=2.0).on(3))
        for result in results[:-1]:
            for step in range(4):
                sent = sum(row["sent_bytes"] for row in result.rows if row["step"] == step)
                assert sent == 48 * 48 * 2 * 4


def test_distrifusion_gathers_without_waiting_after_the_warm_up():
    rows = simulate(Case("distrifusion", {"warmup": 1}).on(3))[0].rows
    gathers = [row for row in rows if row["op"] == "all_gather" and row["layer"] >= 0]
    assert [row["async"] for row in gathers] == [row["step"] >= 1 for row in gathers]
    assert {row["step"] for row in gathers} == {0, 1, 2}


def _two_tags() -> list[float]:
    """Rank 0 sends 0, 1, 2, 3 to rank 1 by tags 0, 1, 0, 1; rank 1 posts both receives of tag 1 first."""
    fabric, at = LocalFabric(Mesh({"a": 3}), torch.device("cpu")), Where(0)
    if fabric.rank == 0:
        sent = [torch.full((2,), float(value)) for value in range(4)]
        works = [fabric.isend(each, 1, axis="a", at=at, tag=i % 2) for i, each in enumerate(sent)]
    else:
        into = [torch.zeros(2) for _ in range(4 if fabric.rank == 1 else 0)]
        works = [fabric.irecv(out, 0, axis="a", at=at, tag=1 - i // 2) for i, out in enumerate(into)]
    for work in works:
        work.wait()
    return [] if fabric.rank == 0 else [out[0].item() for out in into]


def test_messages_match_in_order_for_each_tag(ranks: Ranks) -> None:
    assert ranks.run(3, _two_tags)[1] == [1.0, 3.0, 0.0, 2.0]
