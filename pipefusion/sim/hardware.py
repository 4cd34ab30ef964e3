"""A device as the cost model sees it: nominal rates, the share of them that is reached, and fixed times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pipefusion.core.domain import Bytes, Domain, Natural, Rate, Seconds, Share


@dataclass
class HostConfig:
    """What the program costs its host, in seconds, whatever the device and the link: Python, dispatcher and library.

    `unfused`: the share of element-wise work that is left where a compiler fuses it.
    """

    name: str = "host"
    launch_s: Seconds = 0.0
    call_s: Seconds = 0.0
    message_s: Seconds = 0.0
    batch_s: Seconds = 0.0
    unfused: Share = 1.0
    sources: dict[str, str] = field(default_factory=dict)
    calibrated_on: list[str] = field(default_factory=list)


@dataclass
class DeviceConfig:
    """FLOP/s, bytes/s, bytes and seconds of one device, with their sources and the rows they were fitted on.

    A kernel takes `kernel_s` plus the longer of its arithmetic and its memory traffic, each at peak times efficiency.
    The host needs `launch_s` to issue an operation and, where `asynchronous`, goes on while the device computes.
    `multiprocessors` compute a tile of a matrix product each; with 0 there are no tiles.
    `cache_bytes`: tensors of so many bytes stay in the cache between kernels.
    `unfused`: the share of element-wise work that a compiler leaves.
    """

    name: str = "device"
    memory_bytes: Annotated[int, Domain(1, 1 << 50)] = 1 << 40
    reserved_bytes: Bytes = 0  # context and libraries: not available to tensors
    peak_flops_16: Rate = 1e12
    peak_flops_32: Rate = 1e12
    peak_bandwidth: Rate = 1e11
    matmul_efficiency: Share = 1.0
    attention_efficiency: Share = 1.0
    bandwidth_efficiency: Share = 1.0
    kernel_s: Seconds = 0.0
    launch_s: Seconds = 0.0
    asynchronous: bool = True
    multiprocessors: Natural = 0
    cache_bytes: Bytes = 0
    unfused: Share = 1.0
    sources: dict[str, str] = field(default_factory=dict)
    calibrated_on: list[str] = field(default_factory=list)  # rows of results/published, as file.csv:line
