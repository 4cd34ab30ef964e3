"""The server that ranks are forked from, with their imports done: at most one a process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from multiprocessing import connection, forkserver
from typing import Any, NoReturn

from experiments.errors import ConfigError

LONGEST_TEMPDIR = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes of the temporary directory: a Unix socket's path has at most 107."""
ORPHAN = "experiments.runs.orphan"


def start(preload: list[str]) -> None:
    """Start the server if it is not up. Its imports go on while this process does other things. Raises ConfigError."""
    check()
    multiprocessing.set_forkserver_preload([ORPHAN, *preload])
    forkserver.ensure_running()


def check() -> None:
    """Whether the path of its socket is short enough for the system. Raises ConfigError."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > LONGEST_TEMPDIR:
        text = f"{folder} is too long for the sockets in it; allowed: up to {LONGEST_TEMPDIR} bytes"
        raise ConfigError("TMPDIR", text)


def stop() -> None:
    """End the server. By itself it would do so too, but not before it has imported everything."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


def end_with_parent() -> NoReturn:
    """End this process when the one that started it is gone: a rank would wait for its peers for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
