"""When everything in the scripts of all ranks happens: the engine's rule without programs, tensors or greenlets.

The rank whose clock is lowest goes first and gives up control only inside a communication, as in engine.py; transfers
meet in the order in which they are posted, as in exchange.py. A post and its other ends are found by counting.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property

from pipefusion.core.ledger import Ledger, Span, Where
from pipefusion.core.mesh import Mesh
from pipefusion.sim.engine import SimulationError
from pipefusion.sim.exchange import place
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.meter import DeviceClock
from pipefusion.sim.network import Network, Overlap, TopologyConfig, Transit
from pipefusion.sim.script import Channel, Post, Script


class Meeting:
    """One transfer: how many ends are still open, when the last of them came, and then from when to when it takes."""

    __slots__ = ("asleep", "missing", "start", "transit")

    def __init__(self, missing: int):
        self.missing, self.start = missing, 0.0
        self.transit: Transit | None = None
        self.asleep: list[Timed] = []


class Line:
    """The transfers of one channel or group, one after another. `ranks`: source and receiver, or the group."""

    def __init__(self, ranks: tuple[int, ...], grouped: bool):
        self.ranks, self.grouped = ranks, grouped
        self.meetings: list[Meeting] = []
        self.posts: list[tuple[int, list[Post]]] = []

    def check(self) -> None:
        """Raises SimulationError where the ends do not post the same in the same order."""
        (rank, first), *others = self.posts
        for other, posts in others:
            if posts is first:
                continue
            for mine, theirs in zip(first, posts, strict=False):
                if mine.key != theirs.key:
                    wrong = "shape" if mine.key[1:3] != theirs.key[1:3] else "order"
                    ends = f"rank {rank} is in {described(mine)} and rank {other} in {described(theirs)}"
                    raise SimulationError(f"mismatched {wrong}: {ends}")
        counts = [len(posts) for _, posts in self.posts]
        if len(self.posts) < len(self.ranks) or len(set(counts)) > 1:
            fewest = min(counts) if len(self.posts) == len(self.ranks) else 0
            rank, posts = next((rank, posts) for rank, posts in self.posts if len(posts) > fewest)
            absent = ", ".join(str(other) for other in self.ranks if other != rank)
            raise SimulationError(
                f"left over: rank {rank} is in {described(posts[fewest])}, and of rank {absent} not all are"
            )


def described(post: Post) -> str:
    """`send of [2, 4] float32 (step 1 patch 0)`."""
    _, shape, dtype, at = post.key
    return f"{post.op} of {list(shape)} {str(dtype).removeprefix('torch.')} ({place(at)})"


class Timed:
    """One rank with its script: its clock, how far it has come, and at what time it did each of its actions.

    `times` has a number for each action, and for a wait a second one: when it was over.
    """

    def __init__(self, rank: int, script: Script, mesh: Mesh, device: DeviceConfig):
        self.rank, self.script, self.mesh = rank, script, mesh
        self.clock = DeviceClock(device)
        self.times = array("d")
        self.next, self.charged = 0, False
        self.overlap = Overlap()
        self.lines: list[Line] = []
        self.met: list[Meeting | None] = [None] * len(script.posts)
        self.passed: list[int] = []

    @property
    def total_s(self) -> float:
        """When its program was over."""
        return self.times[-1]

    def spans(self) -> Iterator[Span]:
        """What it did when, in order; stretches of the same kind are not joined."""
        posts, at, last, times = self.script.posts, Where(), 0.0, iter(self.times)
        for action, now in zip(self.script.actions, times, strict=False):
            yield Span("compute", at, last, now)
            last = now
            if action.kind == "begin":
                at = action.place
            elif action.kind == "wait":
                last = next(times)
                post = posts[action.post]
                yield Span("wait", post.at, now, last, post.op)

    @cached_property
    def seconds(self) -> tuple[float, list[float]]:
        """Seconds of computing, summed up as the ledger does, and of waiting for each post."""
        compute_s = begun = last = 0.0
        waits, times, at = [0.0] * len(self.script.posts), iter(self.times), Where()
        for action, now in zip(self.script.actions, times, strict=False):
            kind = action.kind
            if kind == "begin" and action.place != at:
                at = action.place
                compute_s, begun = compute_s + (now - begun), now
            elif kind == "wait":
                last = next(times)
                if last > now:
                    waits[action.post] = last - now
                    compute_s, begun = compute_s + (now - begun), last
            elif kind == "end":
                compute_s += now - begun
        return compute_s, waits

    @cached_property
    def ledger(self) -> Ledger:
        """Entries and spans; without buffers."""
        found, axes = Ledger(), {}
        for post in self.script.posts:
            if post.axis not in axes:
                axes[post.axis] = self.mesh.axis(post.axis, self.rank)
            found.entries.append(post.entry(axes[post.axis]))
        times = iter(self.times)
        for action, now in zip(self.script.actions, times, strict=False):
            if action.kind == "post":
                found.entries[action.post].start_s = now
            elif action.kind == "wait":
                found.entries[action.post].wait_s += next(times) - now
        for span in self.spans():
            found.span(span.kind, span.at, span.start_s, span.end_s, span.op)
        return found


def timetable(
    scripts: Sequence[Script], mesh: Mesh, device: DeviceConfig, topology: TopologyConfig
) -> list[Timed]:
    """Every rank of `mesh`, timed. Raises SimulationError for what would hang or does not belong together."""
    ranks = [Timed(rank, script, mesh, device) for rank, script in enumerate(scripts)]
    connect(ranks, mesh)
    network = Network(topology)
    ready = [(0.0, rank) for rank in range(len(ranks))]
    while ready:
        advance(ranks[heapq.heappop(ready)[1]], ready, network)
    stuck = [rank for rank in ranks if rank.next < len(rank.script.actions)]
    if stuck:
        posts = [(rank.rank, rank.script.posts[rank.script.actions[rank.next].post]) for rank in stuck]
        reasons = "; ".join(f"{mesh.name(rank)} waits for its {described(post)}" for rank, post in posts)
        raise SimulationError(f"deadlock: {reasons}")
    return ranks


def connect(ranks: Sequence[Timed], mesh: Mesh) -> None:
    """Give each rank the line of each of its channels. Raises SimulationError for ends that do not fit."""
    lines: dict[tuple[object, ...], Line] = {}
    lists: dict[tuple[int, Channel], list[Post]] = {}
    for one in ranks:
        for channel, numbers in one.script.channels.items():
            axis = mesh.axis(channel.axis, one.rank)
            ends = axis.ranks
            if channel.op != "group":
                other = axis.ranks[(axis.index + channel.ahead) % axis.size]
                ends = (one.rank, other) if channel.op == "send" else (other, one.rank)
            key = (channel.axis, channel.tag, channel.op == "group", ends)
            line = lines.setdefault(key, Line(ends, channel.op == "group"))
            shared = id(one.script), channel
            if shared not in lists:
                lists[shared] = [one.script.posts[number] for number in numbers]
            line.posts.append((one.rank, lists[shared]))
            one.lines.append(line)
            one.passed.append(0)
    for line in lines.values():
        line.check()


def advance(one: Timed, ready: list[tuple[float, int]], network: Network) -> None:
    """Go on with a rank until another one is earlier, or it has to wait."""
    clock, actions, times, rank = one.clock, one.script.actions, one.times, one.rank
    posts = one.script.posts
    index, charged, end = one.next, one.charged, len(one.script.actions)
    while index < end:
        charges, kind, number, channel, _ = actions[index]
        if not charged:
            clock.charge(*charges)
            if kind == "post":
                clock.spend(network.call_s(None if one.lines[channel].grouped else posts[number].calls))
            now = clock.read()
            times.append(now)
        if kind == "post":
            if not charged:
                mine = (now, rank)
                if ready and ready[0] < mine:
                    heapq.heappush(ready, mine)
                    one.next, one.charged = index, True
                    return
            else:
                now = times[-1]
            meet(one, posts[number], number, channel, now, ready, network)
        elif kind == "wait":
            meeting = one.met[number]
            assert meeting is not None
            if meeting.transit is None:
                meeting.asleep.append(one)
                one.next, one.charged = index, True
                return
            transit = meeting.transit
            clock.delay(network.lost_s(posts[number].is_message, one.overlap.seconds(transit, times[-1])))
            times[-1] = clock.read()
            clock.wait_until(transit.done)
            times.append(clock.read())
            one.met[number] = None
        charged = False
        index += 1
    one.next = index


def meet(
    one: Timed, post: Post, number: int, channel: int, now: float, ready: list[tuple[float, int]], network: Network
) -> None:  # fmt: skip
    """Post one end of a transfer; the last one to come settles when it is done and wakes who waits."""
    line, place_in_line = one.lines[channel], one.passed[channel]
    one.passed[channel] += 1
    meetings = line.meetings
    if place_in_line == len(meetings):
        meetings.append(Meeting(len(line.ranks)))
    meeting = one.met[number] = meetings[place_in_line]
    meeting.missing -= 1
    if now > meeting.start:
        meeting.start = now
    if meeting.missing:
        return
    if line.grouped:
        meeting.transit = network.collective(post.op, line.ranks, post.wire_bytes, meeting.start)
    else:
        source, to = line.ranks
        meeting.transit = network.message(source, to, post.wire_bytes, meeting.start)
    for other in meeting.asleep:
        heapq.heappush(ready, (other.clock.read(), other.rank))
    meeting.asleep.clear()
