"""Checks of how a run ends in which something goes wrong: soon, and with rank and cause in its record."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from experiments.config import RunConfig
from experiments.gpu_check.cases import Failed, Found, method_run
from experiments.gpu_check.ranks import MODEL, execute, sampler_on
from experiments.methods import parallel_degrees
from experiments.models.inputs import read_inputs
from experiments.models.model import open_model
from experiments.runs.rank import in_group
from pipefusion.core.ledger import Where
from pipefusion.core.local import LocalFabric


def ends_as_it_should(
    entry: Callable[..., None], expected: str, method: str, devices: int, cfg: RunConfig, out: Path
) -> Found:
    """A run in which something goes wrong: it ends, and its record says what and where."""
    run = method_run(cfg, method, MODEL, devices, steps=4)
    record = execute(run, out, partial(entry, run))
    if record["status"] == "failed" and re.search(expected, str(record["reason"])):
        return Found(record["reason"])
    raise Failed(f"{record['status']}: {record['reason']}; expected: {expected}")


def killed(run: RunConfig, run_dir: str, cfg: RunConfig) -> None:
    """A rank of a run in which the last one is killed in its second step."""

    def kill(at: Where) -> None:
        if at.step == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def program(device: torch.device) -> None:
        fabric = LocalFabric(parallel_degrees(run).mesh(), device)
        fabric.watch = kill if fabric.rank == run.devices - 1 else None
        sample(run, run_dir, fabric)

    in_group(cfg, program)


def poisoned(run: RunConfig, run_dir: str, cfg: RunConfig) -> None:
    """A rank of a run whose weights have a NaN, in the first matrix of the first block."""
    model = open_model(run.model)
    first = next(name for name in model.view().model.state_dict() if re.search(r"\.0\..*to_q\.weight$", name))

    def program(device: torch.device) -> None:
        read = model.tensors()

        def tensors(name: str, *args: Any, **kwargs: Any) -> Tensor:
            tensor = read(name, *args, **kwargs)
            return tensor * float("nan") if name == first else tensor

        sample(run, run_dir, LocalFabric(parallel_degrees(run).mesh(), device), tensors)

    in_group(cfg, program)


def sample(
    run: RunConfig, run_dir: str, fabric: LocalFabric, read: Callable[..., Tensor] | None = None
) -> None:
    """One image of a run whose inputs lie in its directory."""
    sampler = sampler_on(run, fabric, read)
    assert run.guidance_scale is not None
    sampler(*read_inputs(Path(run_dir) / "inputs.safetensors", run.guidance_scale, fabric.device))
    dist.barrier()
