"""One check, from its start to a row: in processes of its own, ended when it takes too long."""

from __future__ import annotations

import faulthandler
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from experiments.config import RunConfig
from experiments.errors import RunFailed, first_line
from experiments.gpu_check.cases import Check, Failed, Found, NotPossible
from experiments.records import read_json, write_json, write_text
from experiments.runs.agent import start_ranks
from experiments.runs.device import choose_device
from experiments.runs.rank import in_group
from pipefusion.core.mesh import Mesh

LOG = 8000  # characters that are kept of a rank's output: a stack or two
PASSED, FAILED, NOT_POSSIBLE = "passed", "failed", "not possible here"
Program = Callable[[RunConfig, torch.device, Callable[[str], None]], Found]


@dataclass
class Row:
    """How a check ended: `detail` is what it found, or why it has not passed; `log` its ranks' output, if failed."""

    what: str
    of: str
    status: str
    detail: str
    seconds: float = 0.0
    numbers: dict[str, Any] = field(default_factory=dict)
    log: str = ""


class TooLong(Failed):
    """A check that took longer than it may, and was ended."""


def judge(check: Check, cfg: RunConfig, devices: int, out: Path) -> Row:
    """Make a check with `devices` devices at hand; its files stay below `out` if it fails."""
    if check.devices > devices:
        return Row(check.what, check.of, NOT_POSSIBLE, f"takes {check.devices} devices; here: {devices}")
    folder = out / re.sub(r"\W+", "_", f"{check.what} {check.of}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started, numbers = time.monotonic(), {}
    try:
        with time_limit(cfg.measure.timeout_s):
            found = check.run(cfg, folder)
        status, detail, numbers = PASSED, found.detail, found.numbers
    except NotPossible as reason:
        status, detail = NOT_POSSIBLE, str(reason)
    except (Failed, RunFailed) as failure:
        if isinstance(failure, RunFailed) and failure.status == "interrupted":
            raise KeyboardInterrupt from None
        status, detail = FAILED, str(failure)
    except Exception as error:  # whatever it is, the others go on
        status, detail = FAILED, f"{type(error).__name__}: {first_line(error)}"
    log = ""
    if status == FAILED:
        at, log = folder / "at.txt", printed(folder)
        detail = f"{detail} (at {at.read_text()})" if at.exists() else detail
    else:
        shutil.rmtree(folder)
    return Row(check.what, check.of, status, detail, time.monotonic() - started, numbers, log)


def printed(folder: Path) -> str:
    """The last of what each rank of a check printed, tracebacks above all."""
    paths = [path for path in sorted(folder.rglob("*")) if "logs" in path.parts and path.is_file()]
    texts = {path.relative_to(folder): path.read_text(errors="replace")[-LOG:].strip() for path in paths}
    return "\n".join(f"{name}:\n{text}" for name, text in texts.items() if text)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooLong in this thread, the main one, when the block takes longer; other timers go on afterwards."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"no end within {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, ring)
    started, (left, interval) = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3), interval)


def in_ranks(program: Program, ranks: int, cfg: RunConfig, out: Path) -> Found:
    """`program(cfg, device, say)` in `ranks` processes of one group or, for 0, in one that is in none.

    What the first rank returns or raises. Raises RunFailed if a rank dies.
    """
    # A communication may take half of the time that the check may.
    group = replace(cfg, cluster=replace(cfg.cluster, timeout_s=cfg.measure.timeout_s / 2))
    start_ranks(partial(rank_of_check, program, ranks, cfg), out, group, Mesh({"ranks": max(1, ranks)}))
    outcome = read_json(out / "outcome.json")
    if outcome is None:
        raise Failed("ended without a result")
    if outcome["status"] == PASSED:
        return Found(outcome["detail"], outcome["numbers"])
    raise (NotPossible if outcome["status"] == NOT_POSSIBLE else Failed)(outcome["detail"])


def rank_of_check(program: Program, ranks: int, cfg: RunConfig, run_dir: str, group: RunConfig) -> None:
    """What each process of a check does; the first one writes how it ended."""
    out = Path(run_dir)
    faulthandler.dump_traceback_later(0.7 * cfg.measure.timeout_s)  # to the rank's log: where it hangs

    def run(device: torch.device) -> None:
        first = not ranks or dist.get_rank() == 0
        note = partial(write_text, out / "at.txt") if first else lambda text: None
        try:
            found = program(cfg, device, note)
            outcome = asdict(found) | {"status": PASSED}
        except (NotPossible, Failed) as reason:
            status = NOT_POSSIBLE if isinstance(reason, NotPossible) else FAILED
            outcome = {"status": status, "detail": str(reason), "numbers": {}}
        if first:
            write_json(out / "outcome.json", outcome)
            (out / "at.txt").unlink(missing_ok=True)

    if ranks:
        in_group(group, run)
    else:
        run(choose_device(cfg.cluster.device))
