"""Broken toy programs, each of which has to be refused with who, what, at which step, layer and patch."""

from __future__ import annotations

import pytest
import torch

from pipefusion.core.ledger import Where
from pipefusion.core.mesh import Mesh
from pipefusion.sim.clock import FixedClock
from pipefusion.sim.engine import RankFailed, SimulationError
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.faults import Faults, Kill
from pipefusion.sim.network import LinkConfig, TopologyConfig
from pipefusion.sim.world import World

AT = Where(3, 1, 2)
LINK = LinkConfig("link", bandwidth=4.0, latency_s=1.0)  # a second for each float


def run(program, size=2, compute_s=0.0, faults=None):
    clocks = None if faults else [FixedClock(lambda: compute_s) for _ in range(size)]
    world = World(Mesh({"a": size}), torch.device("cpu"), TopologyConfig(port=LINK), faults, clocks)

    def closing(fabric):
        out = program(fabric)
        return out, fabric.close()

    return world.run(closing)


def refused(program, *texts, size=2, **options):
    with pytest.raises(SimulationError) as error:
        run(program, size, **options)
    for text in texts:
        assert text in str(error.value)


def test_both_blocking_on_each_other_is_a_deadlock_that_names_both():
    def program(fabric: SimFabric):
        other = 1 - fabric.rank
        fabric.send(torch.zeros(2), other, axis="a", at=AT)  # nobody ever gets to the receive
        fabric.recv(torch.zeros(2), other, axis="a", at=AT)

    refused(
        program,
        "deadlock",
        "rank 0 waits to send to rank 1 (step 3 layer 1 patch 2; rank 1 has not posted it)",
        "rank 1 waits to send to rank 0",
    )


def test_a_rank_missing_from_a_collective():
    def program(fabric: SimFabric):
        if fabric.rank != 2:
            fabric.all_reduce(torch.zeros(2), axis="a", at=AT)

    refused(program, "deadlock", "rank 1 waits in all_reduce (step 3 layer 1 patch 2; not there: 2)", size=3)


def test_a_message_that_nobody_receives():
    def program(fabric: SimFabric):
        if fabric.rank == 0:
            fabric.isend(torch.zeros(2), 1, axis="a", at=AT)

    refused(program, "missing wait: rank 0 never waited for its send of step 3 layer 1 patch 2")

    def waited(fabric: SimFabric):
        if fabric.rank == 0:
            fabric.send(torch.zeros(2), 1, axis="a", at=AT)

    refused(waited, "rank 0 waits to send to rank 1")
    for seed in range(4):  # some of these let the send complete with nobody there
        refused(waited, "rank 1", faults=Faults(seed=seed))


def test_mismatched_shape_and_order():
    def shapes(fabric: SimFabric):
        if fabric.rank == 0:
            fabric.send(torch.zeros(2), 1, axis="a", at=AT)
        else:
            fabric.recv(torch.zeros(3), 0, axis="a", at=AT)

    refused(shapes, "mismatched shape", "rank 0 sends [2] float32", "rank 1 receives [3] float32", "patch 2")

    def order(fabric: SimFabric):
        if fabric.rank == 0:
            fabric.send(torch.zeros(2), 1, axis="a", at=Where(3, 1, 2))
        else:
            fabric.recv(torch.zeros(2), 0, axis="a", at=Where(3, 1, 3))

    refused(order, "mismatched order", "(step 3 layer 1 patch 2)", "(step 3 layer 1 patch 3)")

    def collectives(fabric: SimFabric):
        if fabric.rank == 0:
            fabric.all_reduce(torch.zeros(2), axis="a", at=AT)
        else:
            fabric.broadcast(torch.zeros(2), 0, axis="a", at=AT)

    refused(collectives, "mismatched order", "all_reduce", "broadcast")


def test_messages_match_in_order_for_each_tag():
    """Rank 1 posts the receives of two tags in the other order than rank 0 the sends, two messages a tag."""

    def program(fabric: SimFabric):
        got = {}
        if fabric.rank == 0:
            sent = [torch.full((2,), float(value)) for value in range(4)]
            works = [fabric.isend(each, 1, axis="a", at=AT, tag=i % 2) for i, each in enumerate(sent)]
        else:
            got = {tag: [torch.zeros(2), torch.zeros(2)] for tag in (1, 0)}
            works = [
                fabric.irecv(out, 0, axis="a", at=AT, tag=tag) for tag, outs in got.items() for out in outs
            ]
        for work in works:
            work.wait()
        return {tag: [out[0].item() for out in outs] for tag, outs in got.items()}

    assert run(program)[1][0] == {0: [0.0, 2.0], 1: [1.0, 3.0]}
    for seed in range(4):
        assert run(program, faults=Faults(seed=seed))[1][0] == {0: [0.0, 2.0], 1: [1.0, 3.0]}

    def other_tags(fabric: SimFabric):
        if fabric.rank == 0:
            fabric.isend(torch.zeros(2), 1, axis="a", at=AT, tag=1).wait()
        else:
            fabric.irecv(torch.zeros(2), 0, axis="a", at=AT, tag=2).wait()

    refused(other_tags, "deadlock", "rank 1 waits to receive from rank 0")


def test_a_buffer_overwritten_before_its_send_was_done():
    def program(fabric: SimFabric):
        tensor = torch.ones(2)
        if fabric.rank == 0:
            work = fabric.isend(tensor, 1, axis="a", at=AT)
            tensor.add_(1)
            work.wait()
        else:
            fabric.recv(tensor, 0, axis="a", at=AT)

    refused(program, "overwritten buffer: rank 0", "send of step 3 layer 1 patch 2")


def test_a_receive_buffer_holds_nothing_before_the_wait():
    def program(fabric: SimFabric):
        tensor = torch.ones(2)
        if fabric.rank == 0:
            fabric.send(torch.full((2,), 7.0), 1, axis="a", at=AT)
            return None
        work = fabric.irecv(tensor, 0, axis="a", at=AT)
        early = tensor.clone()
        work.wait()
        return early, tensor

    (_, ((early, late), _)) = run(program)
    assert early.isnan().all() and (late == 7.0).all()

    def twice(fabric: SimFabric):
        buffer = torch.zeros(3)
        for index, part in enumerate((buffer[:2], buffer[1:])):
            if fabric.rank == 1:
                fabric.irecv(part, 0, axis="a", at=Where(index))

    refused(twice, "overwritten buffer: rank 1 receives step 1 where step 0 has not been waited for")


def test_transfers_overlap_compute_and_waits_are_exposed_time_only():
    """A second of compute before each call; 4 floats take 1 + 4 s from 1 s, when both have posted the message."""

    def program(fabric: SimFabric):
        if fabric.rank == 0:
            fabric.send(torch.zeros(4), 1, axis="a", at=AT)
            return fabric.ledger.spans
        fabric.begin(Where(3, -1, 2))
        work = fabric.irecv(torch.zeros(4), 0, axis="a", at=AT)
        work.wait()  # from 2 s, as the second of compute before it overlaps the transfer
        return fabric.ledger.spans

    for spans, (compute_s, wait_s, total_s) in run(program, compute_s=1.0):
        assert (compute_s, wait_s, total_s) == (2.0, 4.0, 6.0)
        kinds = [(span.kind, span.start_s, span.end_s) for span in spans]
        assert kinds == [("compute", 0.0, 2.0), ("wait", 2.0, 6.0)]


def test_collectives_compute_what_they_should():
    def program(fabric: SimFabric):
        mine = torch.arange(3.0) + 10 * fabric.rank
        gathered, exchanged, total = torch.zeros(3, 3), torch.zeros(3), mine.clone()
        work = fabric.all_gather(gathered, mine, axis="a", at=AT, async_op=True)
        fabric.all_to_all(exchanged, mine, axis="a", at=AT)
        fabric.all_reduce(total, axis="a", at=AT)
        shared = mine.clone()
        fabric.broadcast(shared, 2, axis="a", at=AT)
        work.wait()
        return gathered, exchanged, total, shared

    for rank, ((gathered, exchanged, total, shared), _) in enumerate(run(program, size=3)):
        assert gathered.tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
        assert exchanged.tolist() == [rank, 10 + rank, 20 + rank]
        assert total.tolist() == [30, 33, 36]
        assert shared.tolist() == [20, 21, 22]


def test_a_killed_rank_and_a_program_that_raises_are_named():
    def program(fabric: SimFabric):
        for step in range(5):
            fabric.all_reduce(torch.zeros(1), axis="a", at=Where(step))

    with pytest.raises(RankFailed, match=r"rank 1: Killed: killed at communication 3"):
        run(program, faults=Faults(seed=1, kill=Kill(1, 3)))

    def wrong(fabric: SimFabric):
        if fabric.rank == 1:
            raise ValueError("no such thing")
        fabric.all_reduce(torch.zeros(1), axis="a", at=AT)

    with pytest.raises(RankFailed, match="rank 1: ValueError: no such thing"):
        run(wrong)
