"""Programs of all methods under NCCL's rules, without NCCL: who blocks whom, on hosts and on devices."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any

import pytest
import torch

from experiments.methods import METHODS
from pipefusion.core.channels import Channel, Handshake, channels, handshakes, message_channel
from pipefusion.core.dit import DiT
from pipefusion.core.mesh import Mesh
from pipefusion.core.parallel import Parallel
from pipefusion.core.silent import SilentFabric
from pipefusion.sim.plan import META
from tests.cases import FAMILIES, Case, case_model, case_scheduler, case_view, degrees_in, inputs


@dataclass(eq=False)
class Call:
    """A rank starts its part of a transfer, or (`waits_for`) waits for what it started."""

    rank: int
    use: Handshake | None = None
    waits_for: Call | None = None


@dataclass(eq=False)
class Pending:
    """What a recorded call returns."""

    program: list[Call]
    call: Call

    def wait(self) -> None:
        self.program.append(Call(self.call.rank, waits_for=self.call))


class Recorder(SilentFabric):
    """Keeps the calls of a rank in order."""

    def __init__(self, mesh: Mesh, rank: int):
        super().__init__(mesh, rank, META)
        self.program: list[Call] = []

    def _begin(self, use: Handshake) -> Any:
        call = Call(self.rank, use)
        self.program.append(call)
        return Pending(self.program, call)

    def isend(self, tensor, to, *, axis, at, tag=0):
        place = self.axis(axis)
        return self._begin(
            Handshake(message_channel(place, place.index, to, tag), self.rank, place.ranks[to])
        )

    def irecv(self, out, source, *, axis, at, tag=0):
        place = self.axis(axis)
        channel = message_channel(place, source, place.index, tag)
        return self._begin(Handshake(channel, place.ranks[source], self.rank))

    def send(self, tensor, to, *, axis, at):
        self.isend(tensor, to, axis=axis, at=at).wait()

    def recv(self, out, source, *, axis, at):
        self.irecv(out, source, axis=axis, at=at).wait()

    def _collective(self, axis: str, async_op: bool) -> Any:
        place = self.axis(axis)
        work = self._begin(Handshake(Channel(place.name, place.ranks)))
        return work if async_op else work.wait()

    def broadcast(self, tensor, source, *, axis, at, async_op=False):
        return self._collective(axis, async_op)

    def all_gather(self, out, tensor, *, axis, at, async_op=False):
        return self._collective(axis, async_op)

    def all_to_all(self, out, tensor, *, axis, at, async_op=False):
        return self._collective(axis, async_op)

    def all_reduce(self, tensor, *, axis, at, async_op=False):
        return self._collective(axis, async_op)


class Hollow:
    """A view whose blocks are no more than their calls of `attend`."""

    def __init__(self, view: DiT):
        self.view = view

    def __getattr__(self, name: str) -> Any:
        return getattr(self.view, name)

    def block(self, layer, tokens, given, attend, skip=None):
        shape, (batch, count, _) = self.view.shape, tokens.image.shape
        prefix = shape.own_prefix(layer, given.prompt)
        q = torch.empty(batch, prefix + count, shape.heads, shape.head_dim, device=META)
        attend(layer, q, q, q, prefix)
        return tokens


def record(case: Case, devices: int) -> tuple[Mesh, list[list[Call]]]:
    """The calls of every rank for one image."""
    model, module = case_model(case), METHODS[case.name]
    cfg, scheduler = module.Config(**case.method), case_scheduler(case)
    mesh = degrees_in(case, devices).mesh()
    noise, cond = inputs(case, model)
    fabrics = [Recorder(mesh, rank) for rank in range(devices)]
    for fabric in fabrics:
        view = case_view(case)
        dit = view if mesh.axes.get("tensor", 1) > 1 else Hollow(view)  # which communicates inside of blocks
        with torch.inference_mode():
            module.build(dit, fabric, cfg)(noise.to(META), cond.to(META), scheduler)
    return mesh, [fabric.program for fabric in fabrics]


def members(use: Handshake) -> tuple[int, ...]:
    return use.channel.members if use.sender is None or use.receiver is None else (use.sender, use.receiver)


def connecting(mesh: Mesh, skips: bool) -> list[list[Call]]:
    """What each rank does to connect the channels, as `LocalFabric` does it."""
    shakes = handshakes(mesh, skips)
    return [[Call(rank, use) for use in shakes if rank in members(use)] for rank in range(mesh.size)]


def hosts_left(programs: list[list[Call]], connected: set[Handshake]) -> dict[int, Handshake]:
    """Ranks whose host waits for ever, and for what: the first use of a connection blocks the hosts of all its ends."""
    queues = [[call.use for call in program if call.use] for program in programs]
    at = [0] * len(queues)
    moved = True
    while moved:
        moved, arrived = False, defaultdict(set)
        for rank, queue in enumerate(queues):
            while at[rank] < len(queue) and queue[at[rank]] in connected:
                at[rank] += 1
            if at[rank] < len(queue):
                arrived[queue[at[rank]]].add(rank)
        for use, ranks in arrived.items():
            if ranks == set(members(use)):
                connected.add(use)
                moved = True
    return {rank: queue[at[rank]] for rank, queue in enumerate(queues) if at[rank] < len(queue)}


@dataclass
class Device:
    """A rank's compute stream, and the queues of its communicators."""

    at: int = 0
    queues: dict[Any, list[Call]] = field(default_factory=lambda: defaultdict(list))


def devices_left(programs: list[list[Call]], by_pair: bool) -> dict[int, Handshake]:
    """Ranks whose compute stream waits for ever.

    A communicator runs one operation after the other, each once all its ends have come to it; torch has one a channel
    or, `by_pair`, for messages one a pair of ranks.
    """
    devices, done = [Device() for _ in programs], set()

    def pick_queue(use: Handshake) -> Any:
        return (use.channel, frozenset(members(use))) if by_pair and use.sender is not None else use.channel

    moved = True
    while moved:
        moved = False
        for device, program in zip(devices, programs, strict=True):
            while device.at < len(program):
                call = program[device.at]
                if call.waits_for and call.waits_for not in done:
                    break
                if call.use:
                    device.queues[pick_queue(call.use)].append(call)
                device.at += 1
                moved = True
        for device in devices:
            for name, queue in device.queues.items():
                if not queue:
                    continue
                ends = [devices[rank].queues[name] for rank in members(queue[0].use)]
                if all(end and end[0].use == queue[0].use for end in ends):
                    done.update(end.pop(0) for end in ends)
                    moved = True
    stuck = {}
    for rank, (device, program) in enumerate(zip(devices, programs, strict=True)):
        if device.at < len(program):
            stuck[rank] = program[device.at].waits_for.use
    return stuck


def make_case(name: str, family: str, **settings) -> Case:
    keys = {key.name for key in fields(METHODS[name].Config)}
    method = {key: value for key, value in {"patches": 4, "warmup": 1}.items() if key in keys}
    return Case(name, method, steps=1 if name == "tensor" else 3, model=family, **settings)


PARALLEL = [name for name in METHODS if name != "serial"]
# Of a model the calls know its skips and, inside of blocks, what tensor parallelism reduces.
GRID = [(name, "pixart", devices) for name in PARALLEL for devices in (2, 3)]
GRID += [(name, "hunyuan_tiny", devices) for name in ("pipefusion", "sync_pipeline") for devices in (2, 4)]
GRID += [(name, family, 3) for name in PARALLEL for family in FAMILIES]
GRID.remove(("pcpp", "sana_tiny", 3))  # refused: it has no K, V


def product(name: str, family: str, method: dict[str, Any] | None = None, **degrees: int) -> Any:
    """Two guided images, where the model has branches to share."""
    case = make_case(name, family, guidance=4.5, images=2)
    case = case.but(method=case.method | (method or {}), parallel=Parallel(**degrees))
    return pytest.param(case, id=f"{name} {case.parallel} {family}")


PRODUCTS = [
    product("pipefusion", "pixart", cfg=2, pipe=2),
    product("pipefusion", "pixart", data=2, pipe=2),
    product("pipefusion", "sd3_tiny", pipe=2, ulysses=2),
    product("pipefusion", "sd3_tiny", {"ring": "rotate"}, pipe=2, ring=2),
    product("pipefusion", "pixart", {"patches": 3, "ring": "rotate"}, cfg=2, pipe=2, ring=2, ulysses=2),
    product("pipefusion", "hunyuan_tiny", {"ring": "gather"}, pipe=3, ring=3),
    product("distrifusion", "pixart", patch=2, ulysses=2),
    product("pcpp", "pixart", patch=3, ring=2),
    product("ring", "sd3_tiny", ring=2, ulysses=2),
    product("ring", "pixart", cfg=2, ring=3),
    product("sync_pipeline", "pixart", pipe=2, tensor=2),
    product("parastep", "pixart", step=3, cfg=2),
]


@pytest.mark.parametrize("case", PRODUCTS)
@pytest.mark.fast_cases(2)
def test_no_host_and_no_device_of_a_product_waits_for_ever(case):
    nobody_waits_for_ever(case, case.parallel.world)


@pytest.mark.parametrize(("name", "family", "devices"), GRID)
@pytest.mark.fast_cases(10)
def test_no_host_and_no_device_waits_for_ever(name, family, devices):
    nobody_waits_for_ever(make_case(name, family), devices)


def nobody_waits_for_ever(case: Case, devices: int) -> None:
    mesh, programs = record(case, devices)
    skips = bool(case_model(case).shape.skips)
    connected: set[Handshake] = set()
    assert hosts_left(connecting(mesh, skips), connected) == {}
    used = {call.use for program in programs for call in program if call.use}
    assert used <= connected, "a connection that forms during the first image, where a host may block"
    assert hosts_left(programs, connected) == {}
    for by_pair in (False, True):
        assert devices_left(programs, by_pair) == {}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("pipefusion", "pixart"),
        ("sync_pipeline", "pixart"),
        ("ring", "pixart"),
        ("pipefusion", "hunyuan_tiny"),
    ],
)
def test_without_connecting_first_all_hosts_wait_in_a_circle(name, family):
    _, programs = record(make_case(name, family), 3)
    assert set(hosts_left(programs, set())) == {0, 1, 2}


def test_two_ranks_need_a_communicator_a_direction():
    """Both post a receive and then send: through one communicator nothing could move."""
    mesh = Mesh({"ring": 2})
    programs = []
    for rank in range(2):
        fabric = Recorder(mesh, rank)
        received = fabric.irecv(None, 1 - rank, axis="ring", at=None)
        fabric.isend(None, 1 - rank, axis="ring", at=None).wait()
        received.wait()
        programs.append(fabric.program)
    assert devices_left(programs, by_pair=True) == {}
    line = Channel("ring", (0, 1))
    for call in (call for program in programs for call in program if call.use):
        call.use = call.use._replace(channel=line)
    assert set(devices_left(programs, by_pair=True)) == {0, 1}


def test_every_rank_of_a_mesh_makes_the_same_channels_and_meets_its_partners():
    mesh = Mesh({"pipe": 2, "ring": 3})
    found = channels(mesh)
    assert len(set(found)) == len(found) == 3 * (1 + 2) + 2 * (1 + 3)
    assert hosts_left(connecting(mesh, skips=True), set()) == {}
    number = dict(zip(found, count(), strict=False))
    order = [number[shake.channel] for shake in handshakes(mesh, skips=True)]
    assert order == sorted(order)
