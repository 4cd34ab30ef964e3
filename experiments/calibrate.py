"""`measure=calibrate`: a profile of the device and the link at hand, written as configuration files.

Matrix products, attention and elementwise work are timed at a few sizes on one rank, small operations for the host's
share, and messages between two ranks for the link. The files go into the run directory; copied into conf/device,
conf/link and conf/cluster they are a cluster like any other.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor

from analysis.files import write_text
from experiments.agent import prepare, start_ranks
from experiments.config import RunConfig, as_dict
from experiments.environment import hardware, provenance
from experiments.errors import ConfigError, check_least
from experiments.rank import choose_device, synchronise
from experiments.records import write_json

MESSAGES = (1 << 20, 1 << 22, 1 << 24)
"""Bytes of the messages that the bandwidth is fitted on; latency is that of 8 bytes."""


@dataclass
class CalibrateConfig:
    """`tokens` and `hidden` of the products and attention that are timed: about those of the models to be planned."""

    name: str = "calibrate"
    profile: str = "here"  # name of the profile
    tokens: int = 2304
    hidden: int = 512
    heads: int = 8
    repeats: int = 15


def check_calibrate(cfg: RunConfig) -> None:
    """Raises ConfigError for sizes that cannot be timed."""
    options: CalibrateConfig = cfg.measure
    check_least(cfg, {f"measure.{key}": 1 for key in ("heads", "hidden", "repeats", "tokens")})
    if options.hidden % options.heads:
        text = f"{options.hidden} is not a multiple of measure.heads={options.heads}; allowed: its multiples"
        raise ConfigError("measure.hidden", text)


def calibrate(cfg: RunConfig, out: Path) -> str:
    """Measure into `out`/device.yaml, link.yaml and cluster.yaml; returns the run's status."""
    out.mkdir(parents=True, exist_ok=True)
    prepare()
    start_ranks(calibrate_rank, out, as_dict(cfg), 2)
    measured = json.loads((out / "measured.json").read_text())
    write_json(out / "measured.json", measured | {"config": as_dict(cfg)} | provenance())
    name, found = cfg.measure.profile, measured["device"]
    date = datetime.now(UTC).date().isoformat()
    what = (
        f"measured {date} on {measured['processor']}, {cfg.threads} thread(s) a rank, by experiment=calibrate"
    )
    cpu = found["type"] == "cpu"
    device = {
        "name": name,
        "memory_bytes": found["memory_bytes"],
        "reserved_bytes": 0 if cpu else 1 << 30,
        "peak_flops_16": found["matmul_flops_16"],
        "peak_flops_32": found["matmul_flops_32"],
        "peak_bandwidth": found["bandwidth"],
        "matmul_efficiency": 1.0,
        "attention_efficiency": found["attention_flops_32" if cpu else "attention_flops_16"]
        / found["matmul_flops_32" if cpu else "matmul_flops_16"],
        "bandwidth_efficiency": 1.0,
        "kernel_s": 0.0,
        "launch_s": found["operation_s"],
        "asynchronous": not cpu,
        "sources": {"all": what},
    }
    link = {"name": f"{name}_link", **measured["link"], "sources": {"all": what}}
    defaults = [
        "/schema/cluster@_here_: cluster",
        f"/device@hardware: {name}",
        f"/link@topology.port: {name}_link",
    ]
    write_yaml(out / "device.yaml", ["/schema/device@_here_: device"], device)
    write_yaml(out / "link.yaml", ["/schema/link@_here_: link"], link)
    write_yaml(out / "cluster.yaml", defaults, {"name": name, "world": "plan"})
    for part, values in (("device", found), ("link", measured["link"])):
        for key, value in values.items():
            print(f"{part} {key}: {value:.4g}" if isinstance(value, float) else f"{part} {key}: {value}")
    for folder in ("device", "link", "cluster"):
        target = f"conf/{folder}/{name}{'_link' if folder == 'link' else ''}.yaml"
        print(f"{out / folder}.yaml  -> {target}")
    return "ok"


def write_yaml(path: Path, defaults: list[str], content: dict[str, Any]) -> None:
    """A configuration file as those in conf/."""
    listed = "".join(f"  - {line}\n" for line in [*defaults, "_self_"])
    write_text(path, f"defaults:\n{listed}\n{OmegaConf.to_yaml(content)}")


def calibrate_rank(run_dir: str, cfg: dict[str, Any]) -> None:
    """Two ranks: the first one times itself alone, then both the link between them."""
    torch.set_num_threads(cfg["threads"])
    device = choose_device(cfg["cluster"]["device"])
    cuda = device.type == "cuda"
    dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    with torch.inference_mode():
        found = device_profile(device, CalibrateConfig(**cfg["measure"])) if dist.get_rank() == 0 else {}
        dist.barrier()
        link = link_profile(device, cfg["measure"]["repeats"])
    if dist.get_rank() == 0:
        name = torch.cuda.get_device_name(device) if cuda else hardware()["cpu"]
        record = {"device": found, "link": link, "processor": name}
        (Path(run_dir) / "measured.json").write_text(json.dumps(record, indent=1))
    dist.destroy_process_group()


def seconds_of(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of a call, after two that are not counted."""
    times = []
    for index in range(repeats + 2):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        if index > 1:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def device_profile(device: torch.device, options: CalibrateConfig) -> dict[str, Any]:
    """FLOP/s of products and attention by size of the numbers, bytes/s of elementwise work, seconds of an operation."""
    tokens, hidden, heads = options.tokens, options.hidden, options.heads
    found: dict[str, Any] = {"type": device.type}
    if device.type == "cuda":
        found["memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
    else:
        found["memory_bytes"] = hardware()["memory_bytes"]
    for bits, dtype in ((32, torch.float32), (16, torch.bfloat16)):

        def tensor(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(*shape, device=device).to(dtype)

        x, weight, bias = tensor(1, tokens, hidden), tensor(2 * hidden, hidden), tensor(2 * hidden)
        taken = seconds_of(partial(F.linear, x, weight, bias), device, options.repeats)
        found[f"matmul_flops_{bits}"] = 4.0 * tokens * hidden * hidden / taken
        q = tensor(1, tokens, heads, hidden // heads).transpose(1, 2)
        taken = seconds_of(partial(F.scaled_dot_product_attention, q, q, q), device, options.repeats)
        found[f"attention_flops_{bits}"] = 4.0 * tokens * tokens * hidden / taken
    x, scale = torch.randn(1, tokens, hidden, device=device), torch.randn(1, 1, hidden, device=device)
    taken = seconds_of(lambda: x * scale, device, 4 * options.repeats)
    found["bandwidth"] = 2.0 * x.nbytes / taken
    tiny = torch.randn(1, 1, 8, device=device)

    def many() -> None:
        for _ in range(200):
            F.layer_norm(tiny * 1.5, (8,))

    found["operation_s"] = seconds_of(many, device, options.repeats) / 400
    return found


def link_profile(device: torch.device, repeats: int) -> dict[str, float]:
    """Latency of a small message, bandwidth of large ones, and the host's time to start one; of rank 0."""
    rank, other = dist.get_rank(), 1 - dist.get_rank()

    def ping(size: int) -> float:
        """Seconds of one message, half of a round trip."""
        buffer = torch.zeros(max(1, size // 4), device=device)

        def once() -> None:
            for turn in (0, 1):
                if rank == turn:
                    dist.send(buffer, other)
                else:
                    dist.recv(buffer, other)

        return seconds_of(once, device, 4 * repeats) / 2

    latency = ping(8)
    rates = [size / (ping(size) - latency) for size in MESSAGES]
    calls = []
    for _ in range(repeats):
        out, into = torch.zeros(64, device=device), torch.zeros(64, device=device)
        start = time.perf_counter()
        works = [dist.isend(out, other), dist.irecv(into, other)]
        calls.append((time.perf_counter() - start) / 2)
        for work in works:
            if work is not None:
                work.wait()
    return {"bandwidth": statistics.median(rates), "latency_s": latency, "call_s": statistics.median(calls)}
