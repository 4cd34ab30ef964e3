"""Links between devices, and when a transfer over them is done.

A node has one port a device (full duplex), optionally grouped under roots (the PCIe roots of two sockets) whose traffic
with each other shares one link, and one network card to other nodes. A link serves transfers first come, first served.
Numbers are bytes, seconds, and bytes per second in one direction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

from pipefusion.core.domain import Devices, Domain, Rate, Seconds, Share

RING = 2
"""Connections of a ring to the next node in each direction: the channels that NCCL opens between nodes."""
Link = tuple[str, int, str]
"""(kind, index, direction), kind one of port, root, card."""


@dataclass
class LinkConfig:
    """The defaults are round numbers, of no hardware.

    `efficiency` is the share of the nominal bandwidth that a well-made collective reaches.
    `stream_bandwidth`: what a single connection reaches where that is less (TCP); a message has one, a ring two.
    `call_s`: host time of starting a collective; `message_s` of a message, `batch_s` of several that are
    posted at once (null: as of one; of plans alone, since a rank in virtual time does not know what it will post).
    `congestion` a: a device that exchanges with k others at once (all-to-all) gets 1/k^a of its bandwidth in all.
    `contention`: seconds that a device loses for each second in which it computes while a collective is under way, and
    `message_contention` while a message is.
    """

    name: str = "link"
    bandwidth: Rate = 1e9
    latency_s: Seconds = 0.0
    call_s: Seconds = 0.0
    message_s: Seconds = 0.0
    batch_s: Seconds | None = None
    efficiency: Share = 1.0
    stream_bandwidth: Rate | None = None
    congestion: Annotated[float, Domain(0, 10)] = 0.0
    contention: Annotated[float, Domain(0, 10)] = 0.0
    message_contention: Annotated[float, Domain(0, 10)] = 0.0
    sources: dict[str, str] = field(default_factory=dict)
    calibrated_on: list[str] = field(default_factory=list)

    @property
    def reached(self) -> float:
        """Bytes/s that a collective moves over it."""
        return self.bandwidth * self.efficiency

    def connected(self, connections: int) -> float:
        """Bytes/s over so many connections."""
        return min(self.reached, connections * (self.stream_bandwidth or self.reached))


@dataclass
class TopologyConfig:
    """Nodes of `devices_per_node` devices, each node's devices shared out evenly over `roots`."""

    devices_per_node: Devices = 1024
    port: LinkConfig = field(default_factory=LinkConfig)
    roots: Devices = 1
    root: LinkConfig | None = None  # between the roots of a node; null: as good as a port each
    card: LinkConfig | None = None  # between nodes, one a node; null: there is one node only


class Load(NamedTuple):
    """What a transfer does: each link is `taken` for so many seconds, and from then on it is latency and seconds."""

    taken: list[tuple[Link, float]]
    latency_s: float
    seconds: float


class Transit(NamedTuple):
    """From when a transfer has its links, and when all of it is there."""

    begin: float
    done: float


class Overlap:
    """The seconds that one device computes under transfers, each counted once, in any order of waits."""

    def __init__(self) -> None:
        self._known: list[tuple[float, float]] = []
        """Stretches in which it was counted, or waited; apart from each other, in order."""

    def seconds(self, transit: Transit, now: float) -> float:
        """What it has computed under a transfer, by the time `now` at which it begins to wait for it."""
        computed = max(0.0, min(transit.done, now) - transit.begin)
        start, end, later = min(transit.begin, now), transit.done, []
        while self._known and self._known[-1][1] > start:
            first, last = self._known.pop()
            if first >= end:
                later.append((first, last))
                continue
            computed -= max(0.0, min(transit.done, now, last) - max(transit.begin, first))
            start, end = min(start, first), max(end, last)
        self._known += [(start, end), *reversed(later)]
        return max(0.0, computed)


class Network:
    """The state of all links. Transfers have to be entered in order of their start, which the engine sees to."""

    def __init__(self, topology: TopologyConfig):
        self.topology = topology
        self._free: dict[Link, float] = {}
        self._routes: dict[tuple[int, int], list[Link]] = {}
        self._loads: dict[tuple[str, tuple[int, ...], int], Load] = {}

    def message(self, source: int, to: int, size: int, start: float) -> Transit:
        """When a message is under way that may start at `start`."""
        key = ("message", (source, to), size)
        if key not in self._loads:
            configs = {link: self.config(link) for link in self.route(source, to)}
            latency = max(config.latency_s for config in configs.values())
            taken = [(link, size / config.reached) for link, config in configs.items()]
            self._loads[key] = Load(
                taken, latency, size / min(config.connected(1) for config in configs.values())
            )
        return self._occupy(self._loads[key], start)

    def collective(self, op: str, ranks: Sequence[int], size: int, start: float) -> Transit:
        """When a collective is under way in which every rank puts `size` bytes on the wire.

        All-gather, all-reduce and broadcast go round a ring through the ranks in order, all-to-all directly. Only
        links between these ranks are loaded: groups that share none run at once, others one after another.
        """
        if len(ranks) == 1:
            return Transit(start, start)
        key = (op, tuple(ranks), size)
        if key not in self._loads:
            self._loads[key] = self._collective_load(op, ranks, size)
        return self._occupy(self._loads[key], start)

    def _occupy(self, load: Load, start: float) -> Transit:
        """Take the links as soon as all are free."""
        free, begin = self._free, start
        for link, _ in load.taken:
            since = free.get(link, 0.0)
            if since > begin:
                begin = since
        for link, seconds in load.taken:
            free[link] = begin + seconds
        return Transit(begin, begin + load.latency_s + load.seconds)

    def call_s(self, messages: int | None) -> float:
        """The host's seconds to start so many messages at once, or a collective (None)."""
        port = self.topology.port
        if messages is None:
            return port.call_s
        if messages > 1 and port.batch_s is not None:
            return port.batch_s
        return port.message_s if messages else 0.0

    def lost_s(self, message: bool, seconds: float) -> float:
        """What a device loses that computes for so long under a transfer."""
        port = self.topology.port
        return seconds * (port.message_contention if message else port.contention)

    def _collective_load(self, op: str, ranks: Sequence[int], size: int) -> Load:
        """What a collective of several ranks does to the links between them."""
        n = len(ranks)
        loads: dict[Link, float] = {}
        pairs: Iterable[tuple[int, int]]
        if op == "all_to_all":
            pairs = [(a, b) for a in ranks for b in ranks if a != b]
            each, rounds = size / (n - 1), 1
        else:
            pairs = [(ranks[i], ranks[(i + 1) % n]) for i in range(n)]
            each, rounds = float(size), (2 if op == "all_reduce" else 1) * (n - 1)
        for a, b in pairs:
            for link in self.route(a, b):
                loads[link] = loads.get(link, 0.0) + each
        peers = max(1, self._most_in_a_node(ranks) - 1) if op == "all_to_all" else 1
        taken, longest, latency = [], 0.0, 0.0
        for link, load in loads.items():
            config = self.config(link)
            rate = config.reached if op == "all_to_all" else config.connected(RING)
            seconds = load / rate * (peers**config.congestion if link[0] == "port" else 1.0)
            taken.append((link, seconds))
            longest, latency = max(longest, seconds), max(latency, config.latency_s)
        return Load(taken, rounds * latency, longest)

    def _most_in_a_node(self, ranks: Sequence[int]) -> int:
        """Ranks of a group that are together in one node, where most are: those of a strided group are spread."""
        return max(Counter(rank // self.topology.devices_per_node for rank in ranks).values())

    def config(self, link: Link) -> LinkConfig:
        """What a link is like."""
        topology = self.topology
        found = {"port": topology.port, "root": topology.root, "card": topology.card}[link[0]]
        assert found is not None
        return found

    def route(self, source: int, to: int) -> list[Link]:
        """The links that a transfer occupies, all at once. Raises ValueError between nodes without a network."""
        key = (source, to)
        if key not in self._routes:
            self._routes[key] = self._find_route(source, to)
        return self._routes[key]

    def _find_route(self, source: int, to: int) -> list[Link]:
        topology = self.topology
        route: list[Link] = [("port", source, "out"), ("port", to, "in")]
        node, other = source // topology.devices_per_node, to // topology.devices_per_node
        if node != other:
            if topology.card is None:
                raise ValueError(f"devices {source} and {to} are on two nodes, and the topology has no card")
            return [*route, ("card", node, "out"), ("card", other, "in")]
        per_root = -(-topology.devices_per_node // topology.roots)
        here, there = (
            node * topology.roots + device % topology.devices_per_node // per_root for device in (source, to)
        )
        if here != there and topology.root is not None:
            route += [("root", here, "out"), ("root", there, "in")]
        return route
