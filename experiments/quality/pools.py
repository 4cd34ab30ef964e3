"""Processes side by side: as many as there are cores, or, to sample on GPUs, as there are GPUs."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from experiments.config import RunConfig
from experiments.device import device_type, gpu_name

Pool = AbstractContextManager[ProcessPoolExecutor]


def worker_count(cfg: RunConfig) -> int:
    """Processes at a time on the CPU: `measure.workers`, or one for each `threads` cores."""
    return cfg.measure.workers or max(1, (os.cpu_count() or 1) // cfg.threads)


def workers_of(cfg: RunConfig) -> Pool:
    """Processes for what is done side by side on the CPU."""
    return pool_of(worker_count(cfg))


def samplers(cfg: RunConfig) -> Pool:
    """Processes that sample: as many as on the CPU, or `measure.workers` or one a GPU, which take turns of the GPUs."""
    if device_type(cfg.cluster.device) == "cpu":
        return workers_of(cfg)
    gpus = torch.cuda.device_count()
    turn = multiprocessing.get_context("spawn").Value("i", 0)
    return pool_of(cfg.measure.workers or gpus, take_gpu, (turn, gpus))


def sampling_gpu(cfg: RunConfig) -> str | None:
    """The name of the GPU that pictures are sampled on, asked in a process that samples; None on the CPU."""
    if device_type(cfg.cluster.device) == "cpu":
        return None
    with samplers(cfg) as pool:
        return pool.submit(gpu_name, cfg.cluster.device).result()


@contextmanager
def pool_of(
    count: int, begin: Callable[..., None] | None = None, given: Any = ()
) -> Iterator[ProcessPoolExecutor]:
    """`count` spawned processes, each of which begins with `begin(*given)`."""
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), begin, given)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def take_gpu(turn: Any, gpus: int) -> None:
    """Make the next GPU this process's own, as `LOCAL_RANK` does for a rank."""
    with turn.get_lock():
        os.environ["LOCAL_RANK"] = str(turn.value % gpus)
        turn.value += 1
