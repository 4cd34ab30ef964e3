"""Ranks under torch's elastic agent: started by a fork server that has everything imported, ended together."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, cast
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, get_error_handler
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from experiments.config import RunConfig
from experiments.errors import RunFailed
from experiments.runs import server
from pipefusion.core.mesh import Mesh

PRELOAD = ["torch.distributed", "experiments.runs.agent"]
"""Imports of the fork server where there is a GPU: none of them asks for it.

A process that has asked has initialised the driver, and CUDA cannot be used in what is forked from it.
"""
PRELOAD_CPU = [
    *PRELOAD,
    "diffusers.models.transformers.pixart_transformer_2d",  # and with it all of them
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
    "experiments.runs.rank",
]
"""Elsewhere. diffusers asks for the accelerator while it is imported."""
GRACE_S = 2.0
"""How long a rank that has lost its peer waits to be ended.

The agent first sees the rank that died; if none did, the others lose theirs meanwhile, but for the one that hangs.
"""

STOP_S = 1.5
"""How long after that a rank may take to end when it is asked to."""
RANK_FILES = "*/attempt_*/*"
"""Where the agent has the files of each rank, in `logs/`."""
PID, WAITS, HANGS = "pid", "waits", "hangs"
"""Of a rank that goes on; and what it was at when it was ended: waiting for another one, or not."""
WAITING = ("torch/distributed/distributed_c10d.py", "pipefusion/core/local.py", "pipefusion/core/channels.py")
"""Files in which a rank waits for others."""

LOST = re.compile(r"gloo|[Cc]onnection (closed|reset|refused)|NCCL|^Dist\w*Error")
"""What exceptions of ranks say that wait for another one."""

Entry = Callable[[str, RunConfig], None]
"""What each rank runs, in a process of its own: `entry(run_dir, cfg)`."""


def prepare() -> None:
    """Start the server that ranks are forked from."""
    server.start(PRELOAD if torch.cuda.is_available() else PRELOAD_CPU)


def start_ranks(entry: Entry, run_dir: Path, cfg: RunConfig, mesh: Mesh) -> None:
    """Run `entry(run_dir, cfg)` in a process a rank of `mesh` and wait; returns when all have returned.

    Raises RunFailed if a rank raised, died or was interrupted, which names its place on the mesh; no process is left
    behind in any case.
    """
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
        shutdown_timeout=2,
        logs_specs=DefaultLogsSpecs(str(logs), redirects=Std.ALL),
    )
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    }
    prepare()
    over = threading.Event()
    threading.Thread(target=kill_stopped, args=(logs, over), daemon=True).start()
    try:
        elastic_launch(launch, rank_main)(entry, str(run_dir), cfg)
    except (SignalException, KeyboardInterrupt) as error:
        raise interrupted(error) from None
    except ChildFailedError as error:
        answered = {*ranks_with(logs, "error.json"), *ranks_with(logs, WAITS)}
        places = {rank: path.read_text() for rank, path in ranks_with(logs, HANGS).items()}
        with suppress(OSError):  # a full disk, say: the cause is what matters
            keep_outputs(logs)
        raise cause(error, logs, mesh, answered, places) from None
    else:
        shutil.rmtree(logs, ignore_errors=True)
    finally:
        over.set()
        for number, handler in handlers.items():  # the agent leaves its own behind
            signal.signal(number, handler)


def kill_stopped(logs: Path, over: threading.Event) -> None:
    """Kill the ranks that are left when one has failed: for one that SIGTERM does not end the agent waits 30 s."""
    while not [*logs.glob(f"{RANK_FILES}/error.json")]:
        if over.wait(0.2):
            return
    if not over.wait(GRACE_S + STOP_S):
        for path in logs.glob(f"{RANK_FILES}/{PID}"):
            with suppress(OSError, ValueError):
                os.kill(int(path.read_text()), signal.SIGKILL)


def rank_main(entry: Entry, run_dir: str, cfg: RunConfig) -> None:
    """What each rank's process does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # end at once, also while blocked in a communication
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # but not before it is known what it was at
    own_file(PID).write_text(str(os.getpid()))
    for watch in (server.end_with_parent, end_when_told):
        threading.Thread(target=watch, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(cfg.threads)
    torch.set_num_threads(cfg.threads)
    try:
        entry(run_dir, cfg)
    except Exception as error:
        end_failed(error)
    finally:
        own_file(PID).unlink(missing_ok=True)


def own_file(name: str) -> Path:
    """A file of this rank beside the one that its error is recorded in."""
    return Path(os.environ["TORCHELASTIC_ERROR_FILE"]).with_name(name)


def end_failed(error: Exception) -> NoReturn:
    """End this rank at once, its reason recorded for the agent.

    Nothing is torn down: destroying a process group, or collecting it at exit, waits for receives that were posted and
    that nobody will answer.
    """
    traceback.print_exc()  # to the rank's file
    get_error_handler().record_exception(error)
    if lost_peer(error):
        time.sleep(GRACE_S)
    end_at_once(1)


def end_at_once(code: int) -> NoReturn:
    """End this process without collecting anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end_when_told() -> NoReturn:
    """End this rank at SIGTERM, having noted what it was at, as its main thread may be blocked in a communication."""
    signal.sigwait({signal.SIGTERM})
    frame = sys._current_frames()[cast(int, threading.main_thread().ident)]
    place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
    waits = any(frame.f_code.co_filename.endswith(name) for name in WAITING)
    with suppress(OSError):
        own_file(WAITS if waits else HANGS).write_text(place)
    end_at_once(128 + signal.SIGTERM)


def lost_peer(error: Exception) -> bool:
    """Whether an exception only says that another rank is gone, or has not answered."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and LOST.search(str(error)) is not None


def ranks_with(logs: Path, name: str) -> dict[int, Path]:
    """The file of a name of each rank that has written one."""
    return {int(path.parent.name): path for path in logs.glob(f"{RANK_FILES}/{name}")}


def cause(
    error: Any, logs: Path, mesh: Mesh, answered: Collection[int], places: Mapping[int, str]
) -> RunFailed:
    """One line from the agent's `ChildFailedError`: the rank and its place, and the signal or exception that ended it.

    NCCL's watchdog aborts a rank; what it waited for is in the rank's output only. Where ranks have only waited for
    each other, one that has not `answered` (with an error, or that it waits) is the one that hangs.
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
    hanging = [other for other in range(mesh.size) if other not in answered]
    if hanging and LOST.search(line):
        names = ", ".join(map(mesh.name, hanging))
        at = "".join(f"; {mesh.name(other)} is at {places[other]}" for other in hanging if other in places)
        text = f"{names} hangs: {name} has waited for longer than cluster.timeout_s ({line}){at}"
        return RunFailed("failed", text)
    return RunFailed(failure_status(line), f"{name}: {line}")


def failure_status(message: str) -> str:
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
    for path in sorted(logs.glob(f"{RANK_FILES}/std*.log")):
        text = path.read_text(errors="replace")
        if text:
            with (logs / f"rank-{path.parent.name}.txt").open("a") as out:
                out.write(text)
    for folder in logs.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
