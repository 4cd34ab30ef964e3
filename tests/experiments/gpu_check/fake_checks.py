"""Programs of checks that end in every way there is. Imported by the processes that run them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from experiments.config import RunConfig
from experiments.gpu_check.cases import Failed, Found, NotPossible

Note = Callable[[str], None]


def good(cfg: RunConfig, device: torch.device, note: Note) -> Found:
    note("the only case")
    return Found(f"on {device.type}", {"threads": cfg.threads})


def wrong(cfg: RunConfig, device: torch.device, note: Note) -> Found:
    raise Failed("2 is not 3")


def impossible(cfg: RunConfig, device: torch.device, note: Note) -> Found:
    raise NotPossible("no such unit")


def crash(cfg: RunConfig, device: torch.device, note: Note) -> Found:
    note("case 7")
    os.kill(os.getpid(), signal.SIGSEGV)
    return Found("unreachable")


def bug(cfg: RunConfig, device: torch.device, note: Note) -> Found:
    note("case 8")
    raise RuntimeError("illegal memory access\nand more")


def hang(cfg: RunConfig, device: torch.device, note: Note) -> Found:
    note("case 9")
    time.sleep(600)
    return Found("unreachable")


def second_crashes(cfg: RunConfig, device: torch.device, note: Note) -> Found:
    if dist.get_rank() == 1:
        crash(cfg, device, note)
    dist.barrier()
    return Found("unreachable")
