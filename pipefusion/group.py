"""Joining the ranks that torchrun has started."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import timedelta

import torch
import torch.distributed as dist

from pipefusion.core.local import LocalFabric
from pipefusion.core.parallel import Parallel


def init(
    parallel: Parallel, device: torch.device | str | None = None, timeout: timedelta | None = None
) -> LocalFabric:
    """The fabric of this rank, in the process group that torchrun describes: gloo on a CPU, nccl on CUDA.

    Every rank calls it once, with the same degrees. A process group that is there already is used; without torchrun
    one process is a group of its own.

    Args:
        parallel: the degree of each axis. Their product must be the number of processes.
        device: None takes the GPU of LOCAL_RANK where there is CUDA, else the CPU.
        timeout: how long a communication may wait for another rank. None is torch's own (30 minutes of gloo, 10 of
            nccl); a process group that is there already has the one it was made with.

    Returns:
        What `parallelize` shares a transformer over.

    Raises:
        ValueError: there are more or fewer processes than `parallel` has ranks, or a degree below 1.

    Example:
        >>> fabric = init(Parallel(cfg=2, pipe=2))  # torchrun --nproc-per-node 4
    """
    for axis, degree in asdict(parallel).items():
        if degree < 1:
            raise ValueError(f"{axis}={degree}; allowed: 1 or more")
    world = dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))
    if world != parallel.world:
        raise ValueError(
            f"{parallel} is {parallel.world} ranks, and there are {world} processes; "
            f"allowed: torchrun --nproc-per-node {parallel.world}, or other degrees"
        )
    place = pick_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if not dist.is_initialized():
        join(place, timeout)
    return LocalFabric(parallel.mesh(), place, timeout)


def pick_device(device: torch.device | str | None) -> torch.device:
    """The device given, or this rank's own."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if str(device) == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(device)


def join(device: torch.device, timeout: timedelta | None) -> None:
    """Make the process group."""
    backend, own = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend, timeout=timeout, device_id=own)
    else:
        dist.init_process_group(
            backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout, device_id=own
        )
