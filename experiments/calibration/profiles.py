"""What a rank measures of its device and of its link: rates of arithmetic and memory, seconds of a message."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from math import prod
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from experiments.environment import hardware
from experiments.runs.device import synchronise
from experiments.timing import Elapsed, cache_bytes, copies, message_seconds, timed
from pipefusion.sim.cost import Op, computed_flops

DTYPES = {32: torch.float32, 16: torch.bfloat16}
MESSAGE_BYTES = 1 << 24
"""The largest message that the bandwidth is fitted on, at least; latency is that of 8 bytes."""
HEAD_SIZES = (64, 72, 128)
"""Of the models here; timed beside the profile's own, for how attention fills them up."""
OPERATIONS = 400  # issued at once: fewer than a GPU's queue holds, so that the host is not made to wait


def device_profile(
    device: torch.device, tokens: int, hidden: int, heads: int, samples: int, elapsed: Elapsed
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was found (FLOP/s of products and attention, bytes/s, seconds of an operation), and how it was timed.

    `tokens` and `hidden` are those of one image; there are as many images as reach beyond the cache.
    """
    cuda, cache = device.type == "cuda", cache_bytes(device)
    found: dict[str, Any] = {"type": device.type, "memory_bytes": hardware()["memory_bytes"]}
    found |= {"multiprocessors": 0, "cache_bytes": 0}
    if cuda:
        facts = torch.cuda.get_device_properties(device)
        found |= {"memory_bytes": facts.total_memory, "multiprocessors": facts.multi_processor_count}
        found["cache_bytes"] = cache
    how: dict[str, Any] = {}

    def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    def rate(name: str, work: float, call: Callable[[], Tensor], *read: Tensor) -> float:
        """`work` over the seconds of a call that reads these tensors and writes a new one."""
        moved = sum(one.nbytes for one in read) + call().nbytes
        taken = timed(call, samples, elapsed)
        how[name] = asdict(taken) | {"working_set_bytes": moved}
        return work / taken.seconds

    def computed(op: Op) -> float:
        return computed_flops(op, found["multiprocessors"])

    for bits, dtype in DTYPES.items():
        image = tokens * hidden * dtype.itemsize
        batch = copies(3 * image, cache)  # read once, written with twice the width
        x, weight = tensor(batch, tokens, hidden, dtype=dtype), tensor(2 * hidden, hidden, dtype=dtype)
        call = partial(F.linear, x, weight, tensor(2 * hidden, dtype=dtype))
        shape = (1, batch * tokens, 2 * hidden, hidden)
        flops = computed(Op("matmul", 2.0 * prod(shape), 0.0, dtype.itemsize, shape))
        found[f"matmul_flops_{bits}"] = rate(f"matmul_{bits}", flops, call, x, weight)
        batch = copies(4 * image, cache)
        q, k, v = (tensor(batch, heads, tokens, hidden // heads, dtype=dtype) for _ in range(3))
        call = partial(F.scaled_dot_product_attention, q, k, v)
        flops = computed(
            Op("attention", 4.0 * batch * tokens * tokens * hidden, 0.0, dtype.itemsize, (hidden // heads,))
        )
        found[f"attention_flops_{bits}"] = rate(f"attention_{bits}", flops, call, q, k, v)
    for size in HEAD_SIZES:
        batch = copies(4 * tokens * heads * size * dtype.itemsize, cache)
        q, k, v = (tensor(batch, heads, tokens, size, dtype=dtype) for _ in range(3))
        rate(f"attention_of_{size}", 1.0, partial(F.scaled_dot_product_attention, q, k, v), q, k, v)
    x = tensor(copies(2 * tokens * hidden * 4, cache), tokens, hidden)
    found["bandwidth"] = rate("bandwidth", 2.0 * x.nbytes, partial(torch.mul, x, tensor(1, 1, hidden)), x)
    found["operation_s"] = operation_seconds(device, samples)
    return found, {"cache_bytes": cache, "timings": how}


def operation_seconds(device: torch.device, samples: int) -> float:
    """The host's seconds to issue an operation: those of the device, where it is another, are not waited for."""
    tiny, taken = torch.randn(1, 1, 8, device=device), []
    for _ in range(samples + 2):
        synchronise(device)
        start = time.perf_counter()
        for _ in range(OPERATIONS // 2):
            F.layer_norm(tiny * 1.5, (8,))
        taken.append((time.perf_counter() - start) / OPERATIONS)
    return statistics.median(taken[2:])


def link_profile(device: torch.device, samples: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Bandwidth of large messages, latency of a small one and the host's time to start one; and how it was timed."""
    largest = max(MESSAGE_BYTES, copies(1, cache_bytes(device)))
    found = {size: message_seconds(0, 1, size, device, samples) for size in (8, *messages(largest))}
    latency, sizes = found[8].seconds, messages(largest)
    # Of all in one, not a rate each: where ranks share cores, a small message may be no slower than the smallest.
    bandwidth = sum(sizes) / sum(found[size].seconds - latency for size in sizes)
    how = {f"message_{size}": asdict(one) for size, one in found.items()}
    call_s = call_seconds(device, samples)
    return {"bandwidth": bandwidth, "latency_s": latency, "call_s": call_s, "message_s": call_s}, how


def messages(largest: int) -> tuple[int, int, int]:
    """Bytes of the messages that a bandwidth is fitted on."""
    return largest // 16, largest // 4, largest


def call_seconds(device: torch.device, samples: int) -> float:
    """The host's seconds to start a transfer, one direction at a time as in `timing.ping`."""
    rank, buffer, calls = dist.get_rank(), torch.zeros(64, device=device), []
    for index in range(2 * samples):
        start = time.perf_counter()
        work = dist.isend(buffer, 1 - rank) if index % 2 == rank else dist.irecv(buffer, 1 - rank)
        calls.append(time.perf_counter() - start)
        assert work is not None
        work.wait()
    synchronise(device)
    return statistics.median(calls)
