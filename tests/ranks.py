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

from experiments.server import end_with_parent

PRELOAD = ["torch", "diffusers", "experiments.methods", "experiments.models", "pipefusion.core.local"]

HANGS_S = 600
"""After which ranks are said to hang: no matter how busy the machine is, no test's function takes that long."""


def _serve(rank: int, size: int, store: str, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    threading.Thread(target=end_with_parent, daemon=True).start()  # also in the middle of a communication
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    while (task := pipe.recv()) is not None:
        function, args = task
        try:
            with torch.inference_mode():
                pipe.send((True, function(*args)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()


class Ranks:
    """`size` processes in one gloo group, started at the first call, and again after one that failed.

    Use as a context.
    """

    def __init__(self, size: int):
        self.size = size
        self.pipes: list[Connection] = []
        self.processes: list[BaseProcess] = []

    def start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self.folder = tempfile.TemporaryDirectory()
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            args = (rank, self.size, str(Path(self.folder.name) / "store"), theirs)
            process = context.Process(target=_serve, args=args, daemon=True)
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
        if self.processes:
            self.folder.cleanup()
        self.pipes, self.processes = [], []

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """`function(*args)` on every rank; the results in rank order. Raises AssertionError with a rank's traceback."""
        if not self.processes:
            self.start()
        for pipe in self.pipes:
            pipe.send((function, args))
        results = []
        try:
            for rank, pipe in enumerate(self.pipes):
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
