"""The server that ranks are forked from, with their imports done: at most one a process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing import forkserver
from typing import Any


def start(preload: list[str]) -> None:
    """Start the server if it is not up. Its imports go on while this process does other things."""
    multiprocessing.set_forkserver_preload(preload)
    forkserver.ensure_running()


def stop() -> None:
    """End the server. By itself it would do so too, but not before it has imported everything."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()
