"""Seconds of a call, from samples of many calls in a row: one kernel of a GPU is shorter than a synchronisation."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from experiments.runs.device import synchronise
from pipefusion.core.local import CudaClock, WallClock

SAMPLE_S = 1e-2
"""A sample lasts at least this long: a thousand times what starting and reading a clock takes."""
MOST_CALLS = 1 << 16
BEYOND_CACHE = 4
"""Working sets are at least this many times the cache, so that what is timed is not left there by the call before."""
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")  # as Linux lists them

Elapsed = Callable[[Callable[[], Any], int], float]
"""Seconds of so many calls in a row."""


@dataclass
class Timed:
    """Seconds of one call, the median over samples of `calls` calls each; `samples_s` are those of whole samples."""

    seconds: float
    calls: int
    samples_s: list[float]


def timed(call: Callable[[], Any], samples: int, elapsed: Elapsed) -> Timed:
    """Time a call; before, two that are not counted, and as many as it takes to know how many fill a sample."""
    elapsed(call, 2)
    calls = 1
    while elapsed(call, calls) < SAMPLE_S and calls < MOST_CALLS:
        calls *= 2
    taken = [elapsed(call, calls) for _ in range(samples)]
    return Timed(statistics.median(taken) / calls, calls, taken)


def elapsed_on(device: torch.device) -> Elapsed:
    """The clock of a device: CUDA events around the calls, which do not stop the GPU between them, or the wall."""
    clock = CudaClock() if device.type == "cuda" else WallClock()

    def elapsed(call: Callable[[], Any], calls: int) -> float:
        synchronise(device)
        start = clock.mark()
        for _ in range(calls):
            call()
        end = clock.mark()
        synchronise(device)
        return clock.seconds(start, end)

    return elapsed


def slowest(elapsed: Elapsed, device: torch.device) -> Elapsed:
    """The longest time of any rank, so that all choose the same number of calls."""

    def of_all(call: Callable[[], Any], calls: int) -> float:
        dist.barrier()
        seconds = torch.tensor(elapsed(call, calls), dtype=torch.float64, device=device)
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        return float(seconds)

    return of_all


def cache_bytes(device: torch.device) -> int:
    """The L2 cache: a GPU's, or that of a CPU core (its L3 is shared, and models' tensors do live there); 0 unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    for level in CACHES.glob("index*/level"):
        if level.read_text().strip() == "2":
            return int((level.parent / "size").read_text().strip().removesuffix("K")) << 10
    return 0


def copies(one_bytes: int, cache: int) -> int:
    """How many of what takes `one_bytes` are a working set beyond the cache."""
    return max(1, -(-BEYOND_CACHE * cache // one_bytes))


def ping(sender: int, receiver: int, size: int, device: torch.device) -> Callable[[], None]:
    """A message of `size` bytes there and back again, as these two ranks see it; the others do nothing.

    One direction at a time: were both to send first, two ranks of one NCCL communicator would wait for ever.
    """
    rank, buffer = dist.get_rank(), torch.zeros(max(1, size // 4), device=device)

    def once() -> None:
        for source, to in ((sender, receiver), (receiver, sender)):
            if rank == source:
                dist.send(buffer, to)
            elif rank == to:
                dist.recv(buffer, source)

    return once


def message_seconds(sender: int, receiver: int, size: int, device: torch.device, samples: int) -> Timed:
    """Time of one message between two ranks, half of there and back; every rank of the group has to call it."""
    whole = timed(ping(sender, receiver, size, device), samples, slowest(elapsed_on(device), device))
    return Timed(whole.seconds / 2, 2 * whole.calls, whole.samples_s)
