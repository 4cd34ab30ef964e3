"""Ranks under torch's elastic agent: started by a fork server that has everything imported, ended together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from pipefusion.core.mesh import Mesh

PRELOAD = ["torch.distributed", "experiments.agent"]
"""Imports of the fork server where there is a GPU: none of them asks for it.

A process that has asked has initialised the driver, and CUDA cannot be used in what is forked from it.
"""
PRELOAD_CPU = [*PRELOAD, "diffusers.models.transformers.pixart_transformer_2d", "experiments.rank"]
"""Elsewhere. diffusers asks for the accelerator while it is imported."""
GRACE_S = 2.0
"""How long a rank that has lost its peer waits to be ended, so that the agent first sees the rank that died."""

Entry = Callable[[str, dict[str, Any]], None]


class RunFailed(Exception):
    """A run that did not end well: `status` is failed, oom or interrupted, the text one line with the cause."""

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status = status
        self.reason = reason


def prepare() -> None:
    """Start the server that ranks are forked from. Imports there go on while this process does other things."""
    import torch

    multiprocessing.set_forkserver_preload(PRELOAD if torch.cuda.is_available() else PRELOAD_CPU)
    forkserver.ensure_running()


def start_ranks(entry: Entry, run_dir: Path, config: dict[str, Any], mesh: Mesh) -> None:
    """Run `entry(run_dir, config)` in a process a rank of `mesh` and wait; returns when all have returned.

    Raises RunFailed if a rank raised, died or was interrupted, which names its place on the mesh; no process is left
    behind in any case.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The agent logs what it does and the traceback of a rank; here the record says it, and logs/ has the traceback.
    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    logs = run_dir / "logs"
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=mesh.size,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        start_method="forkserver",
        max_restarts=0,
        monitor_interval=0.1,
        shutdown_timeout=3,
        logs_specs=DefaultLogsSpecs(str(logs), redirects=Std.ALL),
    )
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    }
    prepare()
    try:
        elastic_launch(launch, rank_main)(entry, str(run_dir), config)
    except (SignalException, KeyboardInterrupt) as error:
        raise interrupted(error) from None
    except ChildFailedError as error:
        with suppress(OSError):  # a full disk, say: the cause is what matters
            keep_outputs(logs)
        raise cause(error, logs, mesh) from None
    else:
        shutil.rmtree(logs, ignore_errors=True)
    finally:
        for number, handler in handlers.items():  # the agent leaves its own behind
            signal.signal(number, handler)


def rank_main(entry: Entry, run_dir: str, config: dict[str, Any]) -> None:
    """What each rank's process does."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # end at once, also while blocked in a communication
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(config["threads"])
    torch.set_num_threads(config["threads"])
    try:
        entry(run_dir, config)
    except Exception as error:
        end_failed(error)


def end_failed(error: Exception) -> NoReturn:
    """End this rank at once, its reason recorded for the agent.

    Nothing is torn down: destroying a process group, or collecting it at exit, waits for receives that were posted and
    that nobody will answer.
    """
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    traceback.print_exc()  # to the rank's file
    if lost_peer(error):
        time.sleep(GRACE_S)
    get_error_handler().record_exception(error)
    end_at_once(1)


def end_at_once(code: int) -> NoReturn:
    """End this process without collecting anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def leave(code: int) -> NoReturn:
    """End a command. A rank of torchrun that has failed and been recorded tears nothing down, as in `end_failed`."""
    if code and "RANK" in os.environ:
        end_at_once(code)
    sys.exit(code)


def end_with_parent() -> NoReturn:
    """Kill this rank when the process that started it is gone: it would wait for its peers for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def lost_peer(error: Exception) -> bool:
    """Whether an exception only says that another rank is gone."""
    import torch.distributed as dist

    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return (
        isinstance(error, RuntimeError)
        and re.search(r"gloo|[Cc]onnection (closed|reset|refused)|NCCL", text) is not None
    )


def cause(error: Any, logs: Path, mesh: Mesh) -> RunFailed:
    """One line from the agent's `ChildFailedError`: the rank and its place, and the signal or exception that ended it.

    NCCL's watchdog aborts a rank; what it waited for is in the rank's output only.
    """
    rank, failure = error.get_first_failure()
    name = mesh.name(rank)
    if failure.exitcode == -signal.SIGINT:
        return RunFailed("interrupted", f"{name} was interrupted")
    if failure.exitcode < 0:
        output = logs / f"rank-{rank}.txt"
        found = (
            re.search(r"Watchdog caught .*", output.read_text(errors="replace")) if output.exists() else None
        )
        why = f": {found[0].strip()}" if found else ""
        return RunFailed("failed", f"{name} was killed by {failure.signal_name()}{why}")
    if not isinstance(failure.message, dict):
        return RunFailed("failed", f"{name} exited with code {failure.exitcode}")
    line = failure.message["message"].strip().splitlines()[0]
    return RunFailed(status_of(line), f"{name}: {line}")


def status_of(message: str) -> str:
    """`oom` if a message `Type: text` is about memory, else `failed`."""
    return (
        "oom"
        if re.match(r"MemoryError|OutOfMemoryError|RuntimeError:.*can't allocate memory", message)
        else "failed"
    )


def interrupted(error: BaseException) -> RunFailed:
    """The record of a run ended by Ctrl-C or a signal to this process."""
    number = getattr(error, "sigval", signal.SIGINT)
    return RunFailed("interrupted", f"ended by {signal.Signals(number).name}")


def keep_outputs(logs: Path) -> None:
    """Flatten the agent's folders to `logs/rank-R.txt`; ranks that printed nothing leave none."""
    for path in sorted(logs.glob("*/attempt_*/*/std*.log")):
        text = path.read_text(errors="replace")
        if text:
            with (logs / f"rank-{path.parent.name}.txt").open("a") as out:
                out.write(text)
    for folder in logs.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
