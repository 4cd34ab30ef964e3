"""Times of transfers against closed forms: what a link does alone, shared, and between nodes."""

from __future__ import annotations

from itertools import permutations

import pytest

from pipefusion.core.parallel import Parallel
from pipefusion.sim.network import LinkConfig, Network, Overlap, TopologyConfig, Transit

PORT = LinkConfig("port", bandwidth=100.0, latency_s=1.0)
CARD = LinkConfig("card", bandwidth=10.0, latency_s=5.0, stream_bandwidth=4.0)


def two_nodes() -> Network:
    return Network(TopologyConfig(devices_per_node=4, port=PORT, card=CARD))


def test_a_message_takes_latency_and_bytes_over_bandwidth():
    assert two_nodes().message(0, 1, 200, start=3.0).done == 3.0 + 1.0 + 2.0


def test_a_port_serves_one_message_after_another_and_both_directions_at_once():
    network = two_nodes()
    assert network.message(0, 1, 200, 0.0).done == 3.0
    assert network.message(0, 2, 100, 0.0).done == 2.0 + 1.0 + 1.0  # begins when the port is free
    assert network.message(1, 0, 200, 0.0).done == 3.0  # the other direction is free
    assert network.message(3, 1, 100, 10.0).done == 12.0  # long after


def test_between_nodes_a_single_message_is_bound_by_its_stream_and_the_card_is_shared():
    network = two_nodes()
    assert network.message(0, 4, 40, 0.0).done == 5.0 + 10.0
    assert network.message(1, 5, 40, 0.0).done == 4.0 + 5.0 + 10.0  # the card itself was free after 4 s


@pytest.mark.parametrize(("op", "rounds"), [("all_gather", 3), ("all_reduce", 6), ("broadcast", 3)])
def test_a_ring_within_a_node(op, rounds):
    assert two_nodes().collective(op, (0, 1, 2, 3), 600, 0.0).done == rounds * 1.0 + 6.0


def test_a_ring_across_nodes_crosses_each_card_once_a_direction():
    assert two_nodes().collective("all_gather", tuple(range(8)), 70, 0.0).done == 7 * 5.0 + 70 / (
        2 * 4.0
    )  # two connections


def test_all_to_all_across_nodes_loads_the_card_with_all_pairs():
    # 8 ranks send 70 bytes each, 10 to every other: 4 * 4 pairs cross in a direction
    assert two_nodes().collective("all_to_all", tuple(range(8)), 70, 0.0).done == 5.0 + 160 / 10.0


def test_a_ring_across_nodes_has_two_connections_and_an_all_to_all_many():
    card = LinkConfig("card", bandwidth=100.0, stream_bandwidth=4.0)
    topology = TopologyConfig(devices_per_node=2, port=LinkConfig("port", bandwidth=1e9), card=card)
    assert Network(topology).message(0, 2, 40, 0.0).done == 40 / 4.0
    assert Network(topology).collective("all_gather", (0, 1, 2, 3), 40, 0.0).done == 40 / 8.0
    assert Network(topology).collective("all_to_all", (0, 1, 2, 3), 30, 0.0).done == 4 * 10 / 100.0


def test_what_is_computed_under_transfers_counts_once_in_any_order_of_waits():
    for transits in permutations((Transit(0.0, 4.0), Transit(2.0, 6.0), Transit(8.0, 9.0))):
        overlap = Overlap()
        assert sum(overlap.seconds(transit, 20.0) for transit in transits) == 7.0
    overlap = Overlap()
    assert overlap.seconds(Transit(3.0, 5.0), 3.0) == 0.0  # waited for at once
    assert (
        overlap.seconds(Transit(1.0, 3.0), 10.0) == 2.0
    )  # what was computed before that counts all the same
    assert overlap.seconds(Transit(4.0, 8.0), 10.0) == 3.0  # less what was waited meanwhile
    assert overlap.seconds(Transit(11.0, 12.0), 10.0) == 0.0  # begins in the wait, which ends at 12
    assert overlap.seconds(Transit(9.0, 13.0), 20.0) == 2.0


def test_what_is_computed_under_a_transfer_is_slowed():
    port = LinkConfig("port", contention=0.5, message_contention=0.25, call_s=3.0, message_s=2.0)
    network = Network(TopologyConfig(port=port))
    assert (network.lost_s(False, 4.0), network.lost_s(True, 4.0)) == (2.0, 1.0)
    assert [network.call_s(messages) for messages in (None, 0, 1, 2)] == [3.0, 0.0, 2.0, 2.0]
    port.batch_s = 0.5
    assert [network.call_s(messages) for messages in (None, 0, 1, 2)] == [3.0, 0.0, 2.0, 0.5]


def test_congestion_grows_with_the_number_of_peers():
    port = LinkConfig("port", bandwidth=100.0, latency_s=0.0, congestion=2.0)
    network = Network(TopologyConfig(devices_per_node=8, port=port))
    assert network.collective("all_to_all", (0, 1), 100, 0.0).done == 1.0
    assert network.collective("all_to_all", (0, 1, 2, 3), 100, 100.0).done == pytest.approx(100.0 + 9.0)
    assert network.collective("all_gather", (0, 1, 2, 3), 100, 200.0).done == 201.0  # a ring has one peer


def test_roots_share_the_link_between_them():
    root = LinkConfig("root", bandwidth=10.0, latency_s=0.0)
    port = LinkConfig("port", bandwidth=100.0, latency_s=0.0)
    network = Network(TopologyConfig(devices_per_node=4, port=port, roots=2, root=root))
    assert network.message(0, 1, 100, 0.0).done == 1.0  # same root
    assert network.message(0, 2, 100, 10.0).done == 20.0
    assert (
        network.message(1, 3, 100, 10.0).done == 30.0
    )  # contends for the link between the roots, not for a port
    with pytest.raises(ValueError, match="no card"):
        network.message(0, 4, 1, 0.0)


SOCKETS = TopologyConfig(
    devices_per_node=8,
    port=LinkConfig("port", bandwidth=100.0, latency_s=1.0),
    roots=2,
    root=LinkConfig("root", bandwidth=50.0, latency_s=2.0),
)


def ends(groups: list[tuple[int, ...]], op: str = "all_reduce", size: int = 600) -> list[float]:
    """When the collective of each group is done, all started at once."""
    network = Network(SOCKETS)
    return [network.collective(op, ranks, size, 0.0).done for ranks in groups]


def groups(parallel: Parallel, axis: str) -> list[tuple[int, ...]]:
    """All groups of an axis, in the order of their first rank."""
    mesh = parallel.mesh()
    return sorted({mesh.axis(axis, rank).ranks for rank in range(mesh.size)})


@pytest.mark.parametrize("parallel", [Parallel(pipe=2, tensor=4), Parallel(cfg=2, tensor=4)], ids=str)
def test_neighbours_of_the_innermost_axis_have_links_of_their_own(parallel):
    one, two = groups(parallel, "tensor")
    assert (one, two) == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert ends([one]) == [2 * 3 * 1.0 + 6.0]  # 2 (n - 1) rounds and the bytes of each rank over its port
    assert ends([one, two]) == [12.0, 12.0]  # both at once take the time of one


def test_strided_groups_contend_for_the_link_between_the_roots():
    """Ring 2 is outside of Ulysses 4, so each of its pairs spans both roots."""
    pairs = groups(Parallel(ring=2, ulysses=4), "ring")
    assert pairs == [(0, 4), (1, 5), (2, 6), (3, 7)]
    taken = 600 / 50.0  # each pair loads the link between the roots once a direction
    assert ends(pairs) == [at * taken + 2 * 2.0 + taken for at in range(4)]
    assert ends([(0, 1), (2, 3), (4, 5)]) == [2 * 1.0 + 6.0] * 3  # pairs within a root do not


def test_congestion_counts_the_peers_in_a_node_and_not_in_the_group():
    port = LinkConfig("port", bandwidth=100.0, congestion=1.0)
    network = Network(TopologyConfig(devices_per_node=4, port=port, card=LinkConfig("card", bandwidth=1e9)))
    assert (
        network.collective("all_to_all", (0, 4, 8, 12), 100, 0.0).done == 1.0
    )  # one a node: all leave by the card
    assert network.collective("all_to_all", (0, 1, 4, 5), 100, 10.0).done == 11.0
    assert network.collective("all_to_all", (0, 1, 2, 4), 100, 20.0).done == 22.0  # two peers in a node


def test_roots_end_with_their_node():
    """Seven devices on two roots: 4 and 3; device 7 begins another node and shares no root with device 6."""
    root, card = LinkConfig("root"), LinkConfig("card")
    network = Network(TopologyConfig(devices_per_node=7, roots=2, root=root, card=card))
    kinds = [[kind for kind, *_ in network.route(*pair)] for pair in ((3, 4), (7, 10), (7, 11))]
    assert kinds == [["port", "port", "root", "root"], ["port", "port"], ["port", "port", "root", "root"]]
    assert not set(network.route(3, 4)) & set(network.route(10, 11))
