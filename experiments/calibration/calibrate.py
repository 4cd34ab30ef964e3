"""`measure=calibrate`: a profile of the device and the link at hand, written as configuration files.

Matrix products, attention and elementwise work are timed on one rank, with more data than the cache holds; small
operations for the host's share; and messages between two ranks for the link, where there are two devices. The files
go into the run directory; copied into conf/device, conf/link and conf/cluster they are a cluster like any other.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from analysis.records.files import write_text
from experiments.calibration.profiles import device_profile, link_profile
from experiments.config import RunConfig, as_dict
from experiments.environment import hardware, provenance
from experiments.errors import ConfigError, RunFailed
from experiments.records import write_json
from experiments.runs.agent import start_ranks
from experiments.runs.check import check_cuda
from experiments.runs.device import device_type
from experiments.runs.rank import in_group
from experiments.timing import SAMPLE_S, elapsed_on
from pipefusion.core.domain import Count, Width
from pipefusion.core.mesh import Mesh


@dataclass
class CalibrateConfig:
    """`tokens` and `hidden` of the products and attention that are timed: about those of the models to be planned."""

    name: str = "calibrate"
    profile: str = "here"  # name of the profile
    tokens: Count = 2304
    hidden: Width = 512
    heads: Width = 8
    repeats: Count = 15


def check_calibrate(cfg: RunConfig) -> None:
    """Raises ConfigError for sizes that cannot be timed."""
    options: CalibrateConfig = cfg.measure
    check_cuda(cfg, "cluster.device")
    if options.hidden % options.heads:
        text = f"{options.hidden} is not a multiple of measure.heads={options.heads}; allowed: its multiples"
        raise ConfigError("measure.hidden", text)


def calibrate(cfg: RunConfig, out: Path) -> str:
    """Measure into `out`/device.yaml, link.yaml and cluster.yaml; returns the run's status."""
    out.mkdir(parents=True, exist_ok=True)
    ranks, linkless = ranks_here(cfg.cluster.device)
    try:
        start_ranks(calibrate_rank, out, cfg, Mesh({"ranks": ranks}))
    except RunFailed as failure:
        print(f"{failure.status}: {failure.reason}", file=sys.stderr)
        return failure.status
    measured = json.loads((out / "measured.json").read_text())
    facts = provenance(measured["processor"] if measured["device"]["type"] == "cuda" else None)
    record = measured | {"link_reason": linkless, "config": as_dict(cfg)} | facts
    write_json(out / "measured.json", record)
    for path in write_profile(cfg, measured, out):
        group, name = path.stem, cfg.measure.profile
        print(f"{path}  -> conf/{group}/{name}{'_link' if group == 'link' else ''}.yaml")
    if linkless:
        print(f"no link: {linkless}")
    return "ok"


def write_profile(cfg: RunConfig, measured: dict[str, Any], out: Path) -> list[Path]:
    """The measured numbers as configuration files; a cluster without a link has one device."""
    name, found, link = cfg.measure.profile, measured["device"], measured["link"]
    date = datetime.now(UTC).date().isoformat()
    what = (
        f"measured {date} on {measured['processor']}, {cfg.threads} thread(s) a rank, by experiment=calibrate"
    )
    cpu = found["type"] == "cpu"
    bits = 32 if cpu else 16
    device = {
        "name": name,
        "memory_bytes": found["memory_bytes"],
        "reserved_bytes": 0 if cpu else 1 << 30,
        "peak_flops_16": found["matmul_flops_16"],
        "peak_flops_32": found["matmul_flops_32"],
        "peak_bandwidth": found["bandwidth"],
        "matmul_efficiency": 1.0,
        "attention_efficiency": found[f"attention_flops_{bits}"] / found[f"matmul_flops_{bits}"],
        "bandwidth_efficiency": 1.0,
        "kernel_s": 0.0,
        "launch_s": found["operation_s"],
        "asynchronous": not cpu,
        "multiprocessors": found["multiprocessors"],
        "cache_bytes": found["cache_bytes"],
        "sources": {"all": what},
    }
    cluster: dict[str, Any] = {"name": name, "world": "plan"}
    defaults = ["/schema/cluster@_here_: cluster", f"/device@hardware: {name}"]
    paths = [out / "device.yaml", out / "cluster.yaml"]
    write_yaml(paths[0], ["/schema/device@_here_: device"], device)
    if link:
        defaults.append(f"/link@topology.port: {name}_link")
        paths.append(out / "link.yaml")
        write_yaml(
            paths[2],
            ["/schema/link@_here_: link"],
            {"name": f"{name}_link", **link, "sources": {"all": what}},
        )
    else:
        cluster["topology"] = {"devices_per_node": 1}
    write_yaml(paths[1], defaults, cluster)
    for part, values in (("device", found), ("link", link or {})):
        for key, value in values.items():
            print(f"{part} {key}: {value:.4g}" if isinstance(value, float) else f"{part} {key}: {value}")
    return paths


def write_yaml(path: Path, defaults: list[str], content: dict[str, Any]) -> None:
    """A configuration file as those in conf/."""
    listed = "".join(f"  - {line}\n" for line in [*defaults, "_self_"])
    write_text(path, f"defaults:\n{listed}\n{OmegaConf.to_yaml(content)}")


def ranks_here(device: str) -> tuple[int, str | None]:
    """How many ranks measure, and why there is no link, if there is none."""
    gpus = 2 if device_type(device) == "cpu" else torch.cuda.device_count()
    return (2, None) if gpus > 1 else (1, "one GPU here, and a link takes two")


def calibrate_rank(run_dir: str, cfg: RunConfig) -> None:
    """The first rank times itself alone, then both the link between them, if there are two."""

    def program(device: torch.device) -> None:
        options, rank = cfg.measure, dist.get_rank()
        sizes, samples = (options.tokens, options.hidden, options.heads), options.repeats
        found, how = device_profile(device, *sizes, samples, elapsed_on(device)) if rank == 0 else ({}, {})
        dist.barrier()
        link, messages = link_profile(device, samples) if dist.get_world_size() > 1 else (None, {})
        if rank == 0:
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else hardware()["cpu"]
            how |= {"timings": how["timings"] | messages, "sample_s": SAMPLE_S}
            record = {"device": found, "link": link, "processor": name, **how}
            write_json(Path(run_dir) / "measured.json", record)

    in_group(cfg, program)
