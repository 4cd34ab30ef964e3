"""Real gloo ranks that stay up for many tests: start once, run many functions on them."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from experiments.runs import server

PRELOAD = [
    "experiments.runs.agent",
    "diffusers.models.transformers.pixart_transformer_2d",
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
    "experiments.runs.rank",
]
"""Of the one fork server of a process of the tests: what it lacks each process forked from it imports again."""

HANGS_S = 600
"""After which ranks are said to hang: no matter how busy the machine is, no test's function takes that long."""


def _serve(rank: int, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    threading.Thread(
        target=server.end_with_parent, daemon=True
    ).start()  # also in the middle of a communication
    torch.set_num_threads(1)
    joined = None
    while (task := pipe.recv()) is not None:
        store, size, function, args = task
        if store != joined:
            if joined:
                dist.destroy_process_group()
            dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
            joined = store
        try:
            with torch.inference_mode():
                pipe.send((True, function(*args)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
    if joined:
        dist.destroy_process_group()


class Ranks:
    """Processes that act as gloo groups of any size, started as they are needed, and again after one that failed.

    They stay for many tests, and so does what they have opened. Use as a context.
    """

    def __init__(self) -> None:
        self.pipes: list[Connection] = []
        self.processes: list[BaseProcess] = []
        self.folder = tempfile.TemporaryDirectory()
        self.groups = self.size = 0

    def start(self, size: int) -> None:
        """So many processes in all; all of them anew when one is gone, as after a test that ended their server."""
        if not all(process.is_alive() for process in self.processes):
            self.end()
        server.start(PRELOAD)
        context = multiprocessing.get_context("forkserver")
        for rank in range(len(self.processes), size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def end(self, wait_s: float = 0.0) -> None:
        """Kill what has not ended by itself after so long."""
        for process in self.processes:
            process.join(wait_s)
            if process.is_alive():
                process.kill()
        self.pipes, self.processes, self.size = [], [], 0

    def run(self, size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """`function(*args)` on every rank; the results in rank order. Raises AssertionError with a rank's traceback."""
        self.start(size)
        self.groups += size != self.size
        self.size = size
        store, pipes = str(Path(self.folder.name) / str(self.groups)), self.pipes[:size]
        for pipe in pipes:
            pipe.send((store, size, function, args))
        results = []
        try:
            for rank, pipe in enumerate(pipes):
                assert pipe.poll(HANGS_S), f"rank {rank} gave no answer in {HANGS_S} s"
                good, value = pipe.recv()
                assert good, f"rank {rank}:\n{value}"
                results.append(value)
        except BaseException:  # the others wait for this rank, or have answered what nobody will read
            self.end()
            raise
        return results

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            if process.is_alive():
                pipe.send(None)
        self.end(wait_s=5)
        self.folder.cleanup()
