"""Live lines on the terminal: while ranks run, from the file that rank 0 keeps up to date."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from experiments.records import read_json


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
    over = threading.Event()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{title}: starting ranks", total=None)

        def poll() -> None:
            while not over.wait(0.2):
                state = read_json(run_dir / ".progress.json")
                if state:
                    bar.update(
                        task,
                        description=f"{title}: {state['phase']}",
                        completed=state["step"],
                        total=state["of"],
                    )

        # A thread, as the agent needs the main one to receive signals.
        watcher = threading.Thread(target=poll, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
