"""Ranks that behave or misbehave, for tests of what the parent makes of them. Imported by every rank."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from experiments.config import RunConfig
from experiments.runs import rank
from experiments.runs.rank import in_group, patient_barrier
from pipefusion.core.ledger import Where
from pipefusion.core.local import LocalFabric


def write_report(run_dir: str, number: int) -> None:
    folder = Path(run_dir)
    repeat = {"compute_s": 1.0, "wait_s": 0.5, "idle_s": 0.0, "latency_s": 1.5}
    row = {"rank": number, "layers": str(number), "pid": os.getpid(), **repeat}
    report = {"row": row, "repeats": [repeat, repeat], "ready_unix_s": time.time()}
    (folder / f".rank-{number}.json").write_text(json.dumps(report))
    if number == 0:
        save_file({"latents": torch.zeros(1, 3, 32, 32)}, folder / "latents.safetensors")


def stall(run_dir: str, cfg: RunConfig) -> None:
    """A real run in which rank 1 stops in its second step; the others wait for it."""

    def report_progress(run_dir: Path, fabric: LocalFabric, steps: int) -> Callable[[str], None]:
        def stop(at: Where) -> None:
            if at.step == 1:
                time.sleep(600)

        fabric.watch = stop if fabric.rank == 1 else None
        return lambda name: None

    rank.report_progress = report_progress
    rank.run_rank(run_dir, cfg)


def freeze(run_dir: str, cfg: RunConfig) -> None:
    """Rank 2 is stopped while the others wait for it: no signal but one reaches it."""
    misbehave(run_dir, "freeze", cfg.cluster.timeout_s)


def good(run_dir: str, cfg: RunConfig) -> None:
    dist.init_process_group("gloo")
    write_report(run_dir, dist.get_rank())
    dist.barrier()
    dist.destroy_process_group()


def misbehave(run_dir: str, how: str, timeout_s: float = 600) -> None:
    """Rank 2 does `how`, while the others wait for it."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))
    dist.barrier()
    (Path(run_dir) / f"pid-{dist.get_rank()}").write_text(str(os.getpid()))
    if dist.get_rank() == 2:
        time.sleep(0.3)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "watchdog":
            print(
                "[E128 ProcessGroupNCCL.cpp:632] [Rank 2] Watchdog caught collective operation timeout: WorkNCCL"
            )
            sys.stdout.flush()
            os.abort()
        if how == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        if how == "raise":
            raise ValueError("layer 7 is missing\nand so is the rest")
        if how == "memory":
            raise MemoryError("no room for 12 GiB")
        if how == "diverge":
            raise FloatingPointError("latents not finite: rank 2, step 5")
    if how == "hang":
        time.sleep(600)
    dist.all_reduce(torch.ones(1))


def kill(run_dir: str, cfg: RunConfig) -> None:
    misbehave(run_dir, "kill")


def watchdog(run_dir: str, cfg: RunConfig) -> None:
    misbehave(run_dir, "watchdog")


def fail(run_dir: str, cfg: RunConfig) -> None:
    misbehave(run_dir, "raise")


def memory(run_dir: str, cfg: RunConfig) -> None:
    misbehave(run_dir, "memory")


def diverge(run_dir: str, cfg: RunConfig) -> None:
    misbehave(run_dir, "diverge")


def hang(run_dir: str, cfg: RunConfig) -> None:
    misbehave(run_dir, "hang")


def kill_if_seed_is_1(run_dir: str, cfg: RunConfig) -> None:
    (kill if cfg.seed == 1 else good)(run_dir, cfg)


def fail_with_a_receive_posted(run_dir: str, cfg: RunConfig) -> None:
    """Rank 1 fails with a receive posted, and to tear its group down would take for ever."""

    def program(device: torch.device) -> None:
        dist.barrier()
        if dist.get_rank() == 1:
            dist.destroy_process_group = lambda *_: time.sleep(600)
            dist.irecv(torch.zeros(1), 0)
            raise ValueError("layer 7 is missing")
        dist.barrier()

    in_group(cfg, program)


def decode_for_long(run_dir: str, cfg: RunConfig) -> None:
    """Rank 0 works alone for longer than a communication may take."""

    def program(device: torch.device) -> None:
        wait_for_all = patient_barrier()
        if dist.get_rank() == 0:
            time.sleep(2 * cfg.cluster.timeout_s)
        wait_for_all()
        write_report(run_dir, dist.get_rank())
        wait_for_all()

    in_group(cfg, program)
