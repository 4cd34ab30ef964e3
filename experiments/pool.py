"""Processes side by side, with one bar of what is done and the time left."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments.config import RunConfig
from experiments.runs import server
from experiments.runs.progress import repeated

POLL_S = 0.5
LINE_S = 30.0
"""Between two looks, and between two lines where there is no terminal."""


def worker_count(cfg: RunConfig, gpus: int = 0) -> int:
    """Processes at a time: `measure.workers`, or one for each of the GPUs, or for each `threads` cores."""
    given = getattr(cfg.measure, "workers", None)
    return given or gpus or max(1, len(os.sched_getaffinity(0)) // cfg.threads)


def run_all(
    do: Callable[..., None], jobs: Sequence[tuple[Any, ...]], workers: int, bar: Bar, module: str, gpus: int = 0,
    apart: bool = False,
) -> None:  # fmt: skip
    """`do(*job)` for every job, in processes that have `module` imported; a job that is alone in this process.

    With `gpus` each process has one of them: CUDA is not for this one, nor for what is forked. `apart`: no job is done
    in this process, whose memory it would stay in.

    A job whose process is killed is left undone; whatever else it raises is raised here.
    """
    if not gpus and not apart and (workers == 1 or len(jobs) <= 1):
        with bar.polled():
            for job in jobs:
                do(*job)
        return
    context: Any = multiprocessing.get_context("spawn" if gpus else "forkserver")
    turn = context.Value("i", 0) if gpus else None
    if not gpus:
        context.set_forkserver_preload([server.ORPHAN, module])
    count = max(1, min(workers, len(jobs)))
    with bar.polled(), ProcessPoolExecutor(count, context, initializer=begin, initargs=(turn, gpus)) as pool:
        futures = [pool.submit(do, *job) for job in jobs]
        try:
            for future in futures:
                with suppress(BrokenProcessPool):
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for (
                process
            ) in multiprocessing.active_children():  # else the block would wait for what they are at
                process.terminate()
            raise


def begin(turn: Any, gpus: int) -> None:
    """What a process does before its first job."""
    threading.Thread(target=server.end_with_parent, daemon=True).start()
    if gpus:
        take_gpu(turn, gpus)


def take_gpu(turn: Any, gpus: int) -> None:
    """Make the next GPU this process's own, as `LOCAL_RANK` does for a rank."""
    with turn.get_lock():
        os.environ["LOCAL_RANK"] = str(turn.value % gpus)
        turn.value += 1


@dataclass
class Bar:
    """How many of `total` are done and the time left: a bar on a terminal, elsewhere a line now and then, on stderr."""

    done: Callable[[], int]
    total: int
    title: str
    shown: bool = True

    @contextmanager
    def polled(self) -> Iterator[None]:
        """Show it until the block ends."""
        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        quiet = not (self.shown and console.is_terminal)
        with Progress(
            TextColumn(self.title), *columns, console=console, transient=True, disable=quiet
        ) as bar:
            task = bar.add_task(self.title, total=self.total)
            printed_at = begun = time.monotonic()

            def poll() -> None:
                nonlocal printed_at
                done = self.done()
                bar.update(task, completed=done)
                if quiet and self.shown and done and time.monotonic() - printed_at > LINE_S:
                    printed_at = time.monotonic()
                    left = (printed_at - begun) / done * (self.total - done)
                    text = f"{done} of {self.total} {self.title}, about {left:.0f} s left"
                    print(text, file=sys.stderr, flush=True)

            with repeated(poll, POLL_S):
                yield
