"""Times worked out from scripts are the engine's, and one program stands for all that do the same, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from experiments.methods import METHODS
from pipefusion.core.ledger import Where
from pipefusion.core.mesh import Mesh
from pipefusion.core.parallel import Parallel
from pipefusion.sim.cost import Segment
from pipefusion.sim.engine import SimulationError
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.meter import DeviceClock, Meter
from pipefusion.sim.network import LinkConfig, TopologyConfig
from pipefusion.sim.plan import META
from pipefusion.sim.script import Recorder
from pipefusion.sim.timetable import timetable
from pipefusion.sim.world import World
from tests.cases import case_model
from tests.sampling import planned
from tests.sim.test_plan_world import DEVICE, make_case

LINK = LinkConfig(
    bandwidth=3e6,
    latency_s=1e-5,
    call_s=4e-6,
    message_s=6e-6,
    congestion=0.3,
    contention=0.4,
    message_contention=0.2,
)
NODES = TopologyConfig(
    devices_per_node=4,
    port=LINK,
    roots=2,
    root=LinkConfig(bandwidth=2e6, latency_s=2e-5),
    card=LinkConfig(bandwidth=1e6, latency_s=5e-5, stream_bandwidth=4e5),
)

PRODUCTS = [(name, None) for name in METHODS if name != "serial"]
PRODUCTS += [
    ("pipefusion", Parallel(cfg=2, pipe=2, ulysses=2)),
    ("pipefusion", Parallel(pipe=2, ring=2, tensor=2)),
]
PRODUCTS += [
    ("distrifusion", Parallel(cfg=2, patch=2, ring=2)),
    ("parastep", Parallel(step=2, cfg=2, ulysses=2)),
    ("ring", Parallel(data=2, ring=2, ulysses=2)),
]


def case_on(name: str, parallel: Parallel | None, **settings):
    given = {} if parallel is None else {"parallel": parallel}
    return make_case(
        name, guidance=4.5, images=2, steps=6, **given, **settings
    ), parallel.world if parallel else 4


class Stepped(DeviceClock):
    """A device's clock under the engine, which runs nothing but charges."""

    def resume(self) -> None:
        return None

    def pause(self) -> None:
        return None


def by_the_engine(ranks, mesh):
    """What every rank's fabric has seen when greenlets go through the same scripts."""
    clocks = [Stepped(DEVICE) for _ in ranks]
    world = World(mesh, META, NODES, clocks=clocks)

    def program(fabric):
        script, works = ranks[fabric.rank].timed.script, {}
        tags = {number: channel.tag for channel, posts in script.channels.items() for number in posts}
        for action in script.actions:
            for segment in action.charges:
                clocks[fabric.rank].charge(segment)
            if action.kind == "begin":
                fabric.begin(action.place)
            elif action.kind == "post":
                works[action.post] = posted(fabric, script.posts[action.post], tags[action.post])
            elif action.kind == "wait":
                works.pop(action.post).wait()
        return fabric.close()

    return world.run(program), [fabric.ledger for fabric in world.fabrics]


def posted(fabric, post, tag):
    _, shape, dtype, at = post.key
    place, tensor = fabric.axis(post.axis), torch.empty(shape, dtype=dtype, device=META)
    peer = (place.index + post.ahead) % place.size
    if post.op == "broadcast":
        return fabric.broadcast(tensor, peer, axis=post.axis, at=at, async_op=True)
    if post.op in ("send", "recv"):
        return getattr(fabric, f"i{post.op}")(tensor, peer, axis=post.axis, at=at, tag=tag)
    into = {"all_gather": (place.size, *shape), "all_to_all": tuple(shape)}.get(post.op)
    tensors = (tensor,) if into is None else (torch.empty(into, dtype=dtype, device=META), tensor)
    return getattr(fabric, post.op)(*tensors, axis=post.axis, at=at, async_op=True)


@pytest.mark.parametrize(("name", "parallel"), PRODUCTS, ids=str)
@pytest.mark.fast_cases(4)
def test_the_times_are_those_of_the_engine(name, parallel):
    case, devices = case_on(name, parallel)
    ranks = planned(case, devices, DEVICE, topology=NODES)
    mesh = ranks[0].timed.mesh
    seconds, ledgers = by_the_engine(ranks, mesh)
    for rank, (one, theirs) in enumerate(zip(ranks, ledgers, strict=True)):
        assert (one.compute_s, one.wait_s, one.total_s) == seconds[rank]
        ours = one.ledger
        assert ours.spans == theirs.spans
        assert [entry.row(rank) | {"async": True} for entry in ours.entries] == [
            entry.row(rank) for entry in theirs.entries
        ]


FAMILIES = [("pipefusion", Parallel(cfg=2, pipe=2), family) for family in ("sd3_tiny", "flux2_tiny")]
FAMILIES += [
    ("ulysses", Parallel(ulysses=2), "z_image_tiny"),
    ("pipefusion", Parallel(pipe=2, ulysses=2), "qwen_tiny"),
]
FAMILIES += [("ulysses", Parallel(ulysses=3), "flux_tiny"), ("pipefusion", Parallel(pipe=2), "hunyuan_tiny")]
FAMILIES += [("ring", Parallel(ring=2, ulysses=2), family) for family in ("flux_tiny", "z_image_tiny")]
FAMILIES += [
    ("distrifusion", Parallel(patch=2, ring=2), "sd3_tiny"),
    ("pipefusion", Parallel(pipe=2, ring=2), "qwen_tiny"),
]


@pytest.mark.parametrize(
    ("name", "parallel", "family"), [*((*each, "pixart") for each in PRODUCTS), *FAMILIES], ids=str
)
@pytest.mark.fast_cases(5)
def test_one_program_and_one_steady_step_stand_for_all(name, parallel, family):
    if family in ("flux_tiny", "flux2_tiny") and parallel.cfg > 1:
        parallel = Parallel(pipe=2)  # guidance is embedded
    case, devices = case_on(name, parallel, model=family)
    stand_for_all(case, devices)


def test_one_steady_step_stands_for_all_in_rotation():
    case, devices = case_on("pipefusion", Parallel(cfg=2, pipe=3))
    stand_for_all(
        case.but(method=case.method | {"order": "rotational", "forecast": "taylor3"}, steps=8), devices
    )


@pytest.mark.parametrize("family", ["flux_tiny", "sd3_tiny", "qwen_tiny"])
@pytest.mark.fast_cases(1)
def test_equal_shares_of_a_prompt_are_one_program(family):
    """Eight tokens on two and four Ulysses ranks; of seven the last rank has less."""
    even = {"architecture": {"text_tokens": 8}}
    for parallel in (Parallel(ulysses=4), Parallel(ring=2, ulysses=2)):
        case, devices = case_on("ring" if parallel.ring > 1 else "ulysses", parallel, model=family)
        method = METHODS[case.name]
        assert "ulysses" in method.apart(case_model(case).shape, parallel.ulysses)
        assert "ulysses" not in method.apart(case_model(case.but(**even)).shape, parallel.ulysses)
        stand_for_all(case.but(**even), devices)


def stand_for_all(case, devices):
    """A program for each rank, and one for all that do the same, are the same to the last bit."""
    warmup = case.method.get("warmup", 0)
    plan = partial(planned, case, devices, DEVICE, topology=NODES)
    apart = METHODS[case.name].apart(case_model(case).shape, case.parallel.ulysses)
    every, few = plan(), plan(apart=apart, steady=range(warmup + 1, case.steps - 1))
    for one, other in zip(every, few, strict=True):
        assert one.buffer_bytes == other.buffer_bytes and one.meter.peak_bytes == other.meter.peak_bytes
        assert (one.meter.ops, one.meter.bytes) == (other.meter.ops, other.meter.bytes)
        assert (one.compute_s, one.wait_s, one.total_s) == (other.compute_s, other.wait_s, other.total_s)
        assert one.ledger == other.ledger
    assert sum(one.sent_bytes for one in every) == sum(one.sent_bytes for one in few) > 0


def scripts(*programs):
    """Scripts of ranks on an axis `a`, each a function of its fabric and a tensor."""
    mesh, found = Mesh({"a": len(programs)}), []
    for rank, program in enumerate(programs):
        fabric = Recorder(mesh, rank, META, Meter(DeviceConfig()))
        program(fabric, torch.empty(2, 3, device=META))
        found.append(fabric.close())
    return timetable(found, mesh, DeviceConfig(), TopologyConfig())


def receive_first(peer):
    def program(fabric, tensor):
        fabric.recv(tensor, peer, axis="a", at=Where(1))
        fabric.send(tensor, peer, axis="a", at=Where(1))

    return program


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        ((receive_first(1), receive_first(0)), r"deadlock: rank 0 waits for its recv of \[2, 3\]"),
        (
            (lambda f, t: f.isend(t, 1, axis="a", at=Where()).wait(), lambda f, t: None),
            r"left over: rank 0 is in send of \[2, 3\] float32 \(no step\), and of rank 1",
        ),
        (
            tuple(lambda f, t, at=at: f.all_reduce(t, axis="a", at=Where(at)) for at in (0, 1)),
            r"mismatched order: rank 0 .*step 0.* rank 1 .*step 1",
        ),
        (
            tuple(lambda f, t, n=n: f.all_reduce(t[:n], axis="a", at=Where(0)) for n in (1, 2)),
            "mismatched shape: rank 0 is in all_reduce",
        ),
        ((lambda f, t: f.isend(t, 0, axis="a", at=Where(2)),), "never waited for its send of step 2"),
    ],
)
def test_what_would_hang_or_corrupt_is_an_error(programs, message):
    with pytest.raises(SimulationError, match=message):
        scripts(*programs)


def test_messages_that_are_posted_at_once_cost_one_call_and_slow_what_is_computed_under_them():
    """A ring of two: 8 bytes each way at 2 bytes/s under 3 s of computing."""
    device = DeviceConfig(launch_s=0.0)
    port = LinkConfig(bandwidth=2.0, message_s=1.0, message_contention=0.25)
    mesh, work, found = Mesh({"a": 2}), Segment(1, 3.0, 3.0), []
    for rank in range(2):
        meter = Meter(device)
        fabric = Recorder(mesh, rank, META, meter)
        sent, received = (torch.empty(2, device=META) for _ in range(2))
        works = [
            fabric.irecv(received, 1 - rank, axis="a", at=Where(0)),
            fabric.isend(sent, 1 - rank, axis="a", at=Where(0)),
        ]
        meter.charge(work)
        for one in works:
            one.wait()
        meter.charge(work)
        found.append(fabric.close())
    assert [post.calls for post in found[0].posts] == [2, 0]
    # one call, 4 s on the link of which 3 s are computed under, slowed by a quarter; then as long again
    times = timetable(found, mesh, device, TopologyConfig(port=port))
    assert [one.total_s for one in times] == [1.0 + 4.0 + 3.0] * 2
    short = TopologyConfig(port=replace(port, bandwidth=4.0))  # 2 s under the first computing
    assert [one.total_s for one in timetable(found, mesh, device, short)] == [
        1.0 + 3.0 + 0.25 * 2.0 + 3.0
    ] * 2
