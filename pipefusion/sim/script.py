"""One rank's program written down: what it charges its device, what it posts, what it waits for, in its order.

On `meta` no data and no clock decide what a program does, so that it is run once, alone, and its times are worked out
afterwards (timetable.py), for itself and for all ranks that do the same beside other peers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pipefusion.core.fabric import Work
from pipefusion.core.ledger import Entry, Kind, Ledger, Where, collective, link_bytes
from pipefusion.core.mesh import Axis, Mesh
from pipefusion.sim.cost import Segment
from pipefusion.sim.engine import SimulationError
from pipefusion.sim.exchange import check_out, place
from pipefusion.sim.meter import Meter

Listener = Callable[[str, str, tuple[Tensor, ...], bool], Callable[[], None] | None]
"""Called before each communication: operation, axis, tensors, whether async. Returns what to call after."""


class Channel(NamedTuple):
    """Where a communication meets its other ends: of a message by distance `ahead` on the axis; a group has none."""

    axis: str
    op: Literal["send", "recv", "group"]
    ahead: int = 0
    tag: int = 0


class Post(NamedTuple):
    """One communication as its rank starts it: `wire_bytes` go on the links. Both ends must agree in `key`.

    `ahead`: how far on the axis the peer of a message, or the source of a broadcast, is from it.
    `calls`: how many messages it starts by one call to the library: those that are posted at once with it too, and none
    where it is one of them.
    """

    op: str
    axis: str
    ahead: int
    key: tuple[str, torch.Size, torch.dtype, Where]
    at: Where
    sent_bytes: int
    recv_bytes: int
    wire_bytes: int
    is_async: bool
    calls: int = 1

    @property
    def is_message(self) -> bool:
        return self.key[0] == "message"

    def entry(self, axis: Axis) -> Entry:
        """The post of a rank as its ledger has it."""
        peer = (axis.index + self.ahead) % axis.size if self.is_message or self.op == "broadcast" else -1
        return Entry(self.op, self.axis, peer, self.at, self.sent_bytes, self.recv_bytes, self.is_async)


class Action(NamedTuple):
    """Charges to the device, and then a `post` or the wait for it (its number), the begin of a `place`, or the end."""

    charges: Sequence[Segment]
    kind: Literal["post", "wait", "begin", "end"]
    post: int = -1
    channel: int = -1
    place: Where = Where()


@dataclass
class Script:
    """The program of a rank. `channels` in the order of their first use, each with the posts on it in order."""

    posts: list[Post] = field(default_factory=list)
    channels: dict[Channel, list[int]] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)


class Mark(NamedTuple):
    """A place in a script that is being written: actions, posts and charges before it."""

    actions: int
    posts: int
    charges: int


class Passage(NamedTuple):
    """Consecutive actions that wait for all they post, the `posts` and their channels, and the charges behind them."""

    actions: list[Action]
    posts: list[Post]
    channels: list[Channel]
    charges: list[Segment]


class RecordedWork:
    """A communication that holds what it sends or receives until it is waited for."""

    __slots__ = ("_fabric", "_tensor", "post")

    def __init__(self, fabric: Recorder, post: int, tensor: Tensor | None):
        self._fabric, self.post, self._tensor = fabric, post, tensor

    def wait(self) -> None:
        self._fabric.finish(self)
        self._tensor = None


class Recorder:
    """Fabric on `meta` of a rank whose program is written down. Charges come from `meter`; `listener` hears each call.

    The ledger counts buffers; times and entries are the timetable's.
    """

    def __init__(self, mesh: Mesh, rank: int, device: torch.device, meter: Meter):
        self.mesh, self.rank, self.device, self.meter = mesh, rank, device, meter
        self.ledger, self.place = Ledger(), Where()
        self.script = Script()
        self.listener: Listener | None = None
        self._axes: dict[str, Axis] = {}
        self._numbers: dict[Channel, int] = {}
        self._open: dict[RecordedWork, None] = {}

    def axis(self, name: str) -> Axis:
        if name not in self._axes:
            self._axes[name] = self.mesh.axis(name, self.rank)
        return self._axes[name]

    def begin(self, at: Where) -> None:
        self.place = at
        self.script.actions.append(Action(self.meter.take(), "begin", place=at))

    def close(self) -> Script:
        """The whole script. Raises SimulationError for what was never waited for."""
        if self._open:
            post = self.script.posts[next(iter(self._open)).post]
            self._open.clear()
            raise SimulationError(
                f"missing wait: rank {self.rank} never waited for its {post.op} of {place(post.at)}"
            )
        self.script.actions.append(Action(self.meter.take(), "end"))
        return self.script

    def empty(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        self.ledger.buffer_bytes[kind] += prod(shape) * dtype.itemsize
        return torch.empty(shape, dtype=dtype, device=self.device)

    def zeros(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        return self.empty(kind, *shape, dtype=dtype)

    def isend(self, tensor: Tensor, to: int, *, axis: str, at: Where, tag: int = 0) -> Work:
        return self._message("send", tensor, to, axis, at, tag)

    def irecv(self, out: Tensor, source: int, *, axis: str, at: Where, tag: int = 0) -> Work:
        return self._message("recv", out, source, axis, at, tag)

    def send(self, tensor: Tensor, to: int, *, axis: str, at: Where) -> None:
        self.isend(tensor, to, axis=axis, at=at).wait()

    def recv(self, out: Tensor, source: int, *, axis: str, at: Where) -> None:
        self.irecv(out, source, axis=axis, at=at).wait()

    def broadcast(
        self, tensor: Tensor, source: int, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        entry = collective("broadcast", self.axis(axis), at, tensor.nbytes, async_op, source)
        return self._collect(entry, (tensor,))

    def all_gather(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        mine = self.axis(axis)
        check_out(self.rank, out, (mine.size, *tensor.shape), at)
        return self._collect(collective("all_gather", mine, at, tensor.nbytes, async_op), (out, tensor))

    def all_to_all(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        check_out(self.rank, out, tuple(tensor.shape), at)
        entry = collective("all_to_all", self.axis(axis), at, tensor.nbytes, async_op)
        return self._collect(entry, (out, tensor))

    def all_reduce(self, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False) -> Work | None:
        entry = collective("all_reduce", self.axis(axis), at, tensor.nbytes, async_op)
        return self._collect(entry, (tensor,))

    def finish(self, work: RecordedWork) -> None:
        """`RecordedWork.wait`; nothing the second time."""
        if work in self._open:
            del self._open[work]
            self.script.actions.append(Action(self.meter.take(), "wait", work.post))

    def mark(self) -> Mark:
        """Here."""
        return Mark(len(self.script.actions), len(self.script.posts), len(self.meter.charges))

    def since(self, mark: Mark) -> Passage | None:
        """All since a mark; None where communications that it starts or waits for reach beyond it."""
        actions, posts = self.script.actions[mark.actions :], self.script.posts[mark.posts :]
        waited = [action.post for action in actions if action.kind == "wait"]
        if sorted(waited) != list(range(mark.posts, len(self.script.posts))):
            return None
        if not actions:
            return Passage([], [], [], self.meter.charges[mark.charges :])
        first = actions[0]  # the charges before it began before the mark
        actions[0] = first._replace(charges=first.charges[mark.charges :])
        relative = [
            action._replace(post=action.post - mark.posts) if action.post >= 0 else action
            for action in actions
        ]
        names = list(self._numbers)
        channels = [names[action.channel] for action in actions if action.kind == "post"]
        return Passage(relative, posts, channels, list(self.meter.charges))

    def repeat(self, passage: Passage, step: int) -> None:
        """Do all of a passage again in another step."""
        script, meter, first = self.script, self.meter, len(self.script.posts)
        for post, channel in zip(passage.posts, passage.channels, strict=True):
            script.channels[channel].append(len(script.posts))
            op, shape, dtype, at = post.key
            there = at._replace(step=step)
            script.posts.append(post._replace(at=there, key=(op, shape, dtype, there)))
        for charges, kind, number, channel_number, _ in passage.actions:
            for segment in charges:
                meter.charge(segment)
            script.actions.append(Action(meter.take(), kind, first + number, channel_number))
        for segment in passage.charges:
            meter.charge(segment)

    def _message(
        self, op: Literal["send", "recv"], tensor: Tensor, peer: int, axis: str, at: Where, tag: int
    ) -> Work:
        finish = self.listener(op, axis, (tensor,), True) if self.listener else None
        mine, size = self.axis(axis), tensor.nbytes
        ahead = (peer - mine.index) % mine.size
        key = ("message", tensor.shape, tensor.dtype, at)
        sent, received = (size, 0) if op == "send" else (0, size)
        post = Post(op, axis, ahead, key, at, sent, received, size, True)
        work = self._post(post, Channel(axis, op, ahead, tag), tensor, tensor)
        if finish:
            finish()
        return work

    def _collect(self, entry: Entry, tensors: tuple[Tensor, ...]) -> Work | None:
        """A collective of `tensors` as the call was given them, waited for unless asynchronous."""
        op, axis, at, sent = entry.op, entry.axis, entry.at, entry.sent_bytes
        finish = self.listener(op, axis, tensors, entry.is_async) if self.listener else None
        mine = self.axis(axis)
        ahead = (entry.peer - mine.index) % mine.size if op == "broadcast" else 0
        tensor = tensors[-1]
        key, wire = (op, tensor.shape, tensor.dtype, at), link_bytes(entry, tensor.nbytes)
        post = Post(op, axis, ahead, key, at, sent, entry.recv_bytes, wire, entry.is_async)
        in_place = len(tensors) == 1 and (op == "all_reduce" or sent == 0)  # what was sent is gone by design
        work = self._post(post, Channel(axis, "group"), tensor, None if in_place else tensor)
        if not entry.is_async:
            work.wait()
        if finish:
            finish()
        return work if entry.is_async else None

    def _post(self, post: Post, channel: Channel, tensor: Tensor, held: Tensor | None) -> RecordedWork:
        if not tensor.is_contiguous():
            raise SimulationError(f"rank {self.rank}: {list(tensor.shape)} is not contiguous")
        script, number, charges = self.script, len(self.script.posts), self.meter.take()
        last = script.actions[-1] if script.actions else None
        if (
            post.is_message
            and last
            and last.kind == "post"
            and not charges
            and script.posts[last.post].is_message
        ):
            post, first = post._replace(calls=0), last.post
            while not script.posts[first].calls:
                first -= 1
            script.posts[first] = script.posts[first]._replace(calls=script.posts[first].calls + 1)
        script.posts.append(post)
        script.channels.setdefault(channel, []).append(number)
        index = self._numbers.setdefault(channel, len(self._numbers))
        script.actions.append(Action(charges, "post", number, index))
        work = RecordedWork(self, number, held)
        self._open[work] = None
        return work
