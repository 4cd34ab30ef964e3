"""Communicators of a mesh on NCCL: which there are, what goes through which, and how they are connected beforehand.

NCCL runs the operations of a communicator in the order in which they are posted, and connects two ranks of it when
they first exchange something: in a handshake that blocks the host of both. A pipeline posts its receives first, so that
every host would wait for the next one. Connected in one order that is the same for all, no host waits in a circle.
"""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

from pipefusion.core.mesh import Axis, Mesh


class Channel(NamedTuple):
    """A communicator: of a whole line of ranks along an axis or, with `hop`, of its ranks number `hop` and the next.

    A hop goes one way only: with two ranks in a ring, a receive posted early would block the send that its sender
    waits for.
    """

    axis: str
    line: tuple[int, ...]
    hop: int | None = None

    @property
    def members(self) -> tuple[int, ...]:
        """Global ranks; of a hop the sender first."""
        if self.hop is None:
            return self.line
        return self.line[self.hop], self.line[(self.hop + 1) % len(self.line)]


class Handshake(NamedTuple):
    """The first message from one rank to another through a channel; without the two, the first collective."""

    channel: Channel
    sender: int | None = None
    receiver: int | None = None


def message_channel(place: Axis, sender: int, receiver: int, tag: int) -> Channel:
    """The channel of a message between two indices of a line: the hop's, or the line's own where there is none.

    NCCL knows no tags: messages with another tag come in an order of their own and go through the line's.
    """
    hop = tag == 0 and receiver == (sender + 1) % place.size
    return Channel(place.name, place.ranks, sender if hop else None)


def channels(mesh: Mesh) -> list[Channel]:
    """All channels of a mesh, in the order in which every rank has to make them."""
    found = []
    for name, size in mesh.axes.items():
        for line in sorted({mesh.axis(name, rank).ranks for rank in range(mesh.size)}):
            found.append(Channel(name, line))
            found += [Channel(name, line, hop) for hop in range(size if size > 1 else 0)]
    return found


def handshakes(mesh: Mesh, skips: bool) -> list[Handshake]:
    """What connects every channel, in the order in which every rank has to take its part.

    Messages between ranks that are not one hop apart go along `patch` (backwards, to a neighbour), along `step` (to its
    rank 0) and, in a model with long `skips`, along `pipe`.
    """
    found = []
    for channel in channels(mesh):
        if channel.hop is not None:
            found.append(Handshake(channel, *channel.members))
            continue
        found.append(Handshake(channel))
        if channel.axis in ("patch", "step") or (skips and channel.axis == "pipe"):
            found += [Handshake(channel, *pair) for pair in permutations(channel.line, 2)]
    return found
