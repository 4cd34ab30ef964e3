"""Live lines on the terminal while ranks or processes run; those of ranks from a file that rank 0 keeps up to date."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from analysis.records.files import write_text
from experiments.records import read_json
from pipefusion.core.ledger import Where
from pipefusion.core.local import LocalFabric
from pipefusion.sim.fabric import SimFabric


@contextmanager
def repeated(do: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call a function every so often until the block ends, in a thread: the main one receives signals."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every_s):
            do()

    watcher = threading.Thread(target=repeat, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextmanager
def live(run_dir: Path, title: str) -> Iterator[None]:
    """Show phase, step and time until the block ends. On stderr, and only if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{title}: starting ranks", total=None)

        def poll() -> None:
            state = read_json(run_dir / ".progress.json")
            if state:
                description = f"{title}: {state['phase']}"
                bar.update(task, description=description, completed=state["step"], total=state["of"])

        with repeated(poll, 0.2):
            yield


def report_progress(run_dir: Path, fabric: LocalFabric | SimFabric, steps: int) -> Callable[[str], None]:
    """A function that names the phase; the steps within it are those that the fabric counts. Rank 0 alone is shown."""
    if fabric.rank != 0:
        return lambda name: None
    state: dict[str, Any] = {"phase": "", "step": 0, "of": steps}
    last = 0.0

    def show(**news: Any) -> None:
        nonlocal last
        state.update(news)
        now = time.monotonic()
        if "phase" in news or now - last > 0.2:
            last = now
            write_text(run_dir / ".progress.json", json.dumps(state))

    def count(at: Where) -> None:
        if state["step"] != at.step + 1:
            show(step=at.step + 1)

    fabric.watch = count
    return lambda name: show(phase=name, step=0)
