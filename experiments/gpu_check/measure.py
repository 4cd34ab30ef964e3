"""`measure=gpu_check`: whether the project works on the GPUs of this machine, in ten minutes, as a page and a record.

What has never run on a GPU can be wrong in ways that a CPU does not show: kernels, waiting, communicators, memory. Each
check is made in processes of its own, so that one that fails, crashes or hangs is a row like the others.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from experiments.config import RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, check_known
from experiments.gpu_check.cases import TOLERANCES, Check
from experiments.gpu_check.checks import checks
from experiments.gpu_check.judge import FAILED, Row, judge
from experiments.gpu_check.page import headline, page
from experiments.gpu_check.silent import PEAK_TOLERANCE
from experiments.records import write_json, write_text
from experiments.runs.check import CHOICES
from experiments.runs.device import device_type
from pipefusion.core.domain import Domain


@dataclass
class GpuCheckConfig:
    """`timeout_s`: a check that takes longer is ended, and failed. `only`: checks whose name or subject has this."""

    name: str = "gpu_check"
    timeout_s: Annotated[float, Domain(1, 86_400)] = 120.0
    only: str | None = None


def check_gpu_check(cfg: RunConfig) -> None:
    """Whether there is a GPU; where there is none, says what would be checked. Raises ConfigError."""
    if cfg.devices < 2:
        raise ConfigError("devices", f"{cfg.devices} leaves no ranks to check; allowed: 2 or more")
    check_known(cfg, {"cluster.device": CHOICES["cluster.device"]})
    chosen = select(cfg)
    if not chosen:
        raise ConfigError("measure.only", f"{cfg.measure.only!r} is in no check; allowed: part of a name")
    if cfg.cluster.device != "cpu" and not torch.cuda.is_available():
        print("\n".join(outline(chosen)))
        text = f"{cfg.cluster.device} finds no GPU here, and without one nothing is checked"
        raise ConfigError("cluster.device", f"{text}; allowed: a machine with an NVIDIA GPU")


def outline(chosen: list[Check]) -> list[str]:
    """What would be checked, a line each, with all that it would be checked of."""
    subjects: dict[tuple[str, int], list[str]] = {}
    for check in chosen:
        subjects.setdefault((check.what, check.devices), []).append(check.of)
    gpus = {1: "one GPU", 2: "two or more GPUs"}
    lines = [f"  {what} ({gpus[count]}): {', '.join(of)}" for (what, count), of in subjects.items()]
    return ["On a machine with a GPU this would check:", *lines]


def select(cfg: RunConfig) -> list[Check]:
    """The checks that are asked for."""
    part = cfg.measure.only
    return [check for check in checks(ranks(cfg)) if part is None or part in f"{check.what} {check.of}"]


def here(cfg: RunConfig) -> int:
    """Devices at hand: GPUs, or as many processes of a CPU as are asked for."""
    return cfg.devices if device_type(cfg.cluster.device) == "cpu" else torch.cuda.device_count()


def ranks(cfg: RunConfig) -> int:
    """Ranks of the checks that take several devices."""
    return max(2, min(cfg.devices, here(cfg)))


def gpu_check(cfg: RunConfig, out: Path) -> str:
    """Make all checks into gpu_check.json and gpu_check.md in `out`; the record is whole after each of them."""
    out.mkdir(parents=True, exist_ok=True)
    chosen, rows, started, devices = select(cfg), [], time.monotonic(), here(cfg)
    for check in chosen:
        row = judge(check, cfg, devices, out / "failed")
        rows.append(row)
        print(f"{row.status}: {row.what}: {row.of}: {row.detail}", flush=True)
        write(cfg, rows, len(chosen), time.monotonic() - started, out)
    if not any(row.status == FAILED for row in rows):
        shutil.rmtree(out / "failed", ignore_errors=True)
    print(f"{headline([asdict(row) for row in rows])}  {out / 'gpu_check.md'}")
    return "failed" if any(row.status == FAILED for row in rows) else "ok"


def write(cfg: RunConfig, rows: list[Row], planned: int, seconds: float, out: Path) -> None:
    """The record of the checks so far, and its page."""
    device = device_type(cfg.cluster.device)
    gpu: Any = next((row.numbers["gpu"] for row in rows if "gpu" in row.numbers), None)
    record = {
        "device": device,
        "complete": len(rows) == planned,
        "planned": planned,
        "seconds": seconds,
        "tolerances": TOLERANCES,
        "peak_tolerance": PEAK_TOLERANCE[device],
        "checks": [asdict(row) for row in rows],
    }
    record |= provenance(gpu) | {"config": as_dict(cfg)}
    write_json(out / "gpu_check.json", record)
    write_text(out / "gpu_check.md", page(record))
