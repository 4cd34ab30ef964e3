"""`measure=fit`: the efficiencies of devices and links from published rows, written into conf/device and conf/link.

A device has two fitted numbers, what matrix products and what attention reach of the peak, from the rows of one such
GPU alone. A link has at most one, from one row: how badly all-to-all fares on PCIe, what TCP leaves of Ethernet. All
else is a datasheet's number or one assumption for all hardware. What was fitted on is listed beside the values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.files import write_text
from experiments.config import CONF, RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, check_known, config_names
from experiments.models import Model, build_scheduler, open_model, resolved
from experiments.plan import plan
from experiments.published import Target, target_run, targets
from experiments.records import write_json
from experiments.session import Session, empty_inputs
from pipefusion.core.denoise import assemble
from pipefusion.core.domain import Number, outside
from pipefusion.core.mesh import Mesh
from pipefusion.core.sequence import plain
from pipefusion.core.silent import SilentFabric
from pipefusion.sim.cost import Op, kernel_seconds
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.meta import MetaMode
from pipefusion.sim.meter import Meter
from pipefusion.sim.network import LinkConfig

FITTED = ("bandwidth", "latency_s", "call_s", "efficiency", "congestion")
PLACES = ("port", "root", "card")
GRID = np.geomspace(0.05, 1.0, 400)


@dataclass
class LinkFit:
    """One number of a link from one published row: `key` of conf/link/NAME.yaml between `low` and `high`."""

    name: str
    key: str
    row: str
    place: str  # where the cluster has this link: port or card
    low: Number
    high: Number
    also: list[str] = field(default_factory=list)  # other links that share the number


@dataclass
class FitConfig:
    """Which devices have rows of their own, which borrow the mean of theirs, and the links."""

    name: str = "fit"
    devices: list[str] = field(default_factory=lambda: ["t4", "l20", "l40", "a100"])
    borrow: list[str] = field(default_factory=lambda: ["h100", "h200"])
    links: list[LinkFit] = field(default_factory=list)


def check_fit(cfg: RunConfig) -> None:
    """Devices, links and rows that do not exist, devices without rows of their own. Raises ConfigError."""
    options: FitConfig = cfg.measure
    devices, links, rows = config_names("device"), config_names("link"), model_targets(cfg)
    if not options.devices and (options.borrow or not options.links):
        raise ConfigError("measure.devices", "[] leaves nothing to fit; allowed: files of conf/device")
    check_known(cfg, {"measure.devices": devices, "measure.borrow": devices})
    for name in options.devices:
        if not alone(rows, name):
            text = f"{name} has no published row of one GPU with {cfg.model.name}; allowed: measure.borrow"
            raise ConfigError("measure.devices", text)
    for index, link in enumerate(options.links):
        key = f"measure.links.{index}"
        names = {"name": links, "also": links, "key": FITTED, "place": PLACES}
        check_known(cfg, {f"{key}.{part}": allowed for part, allowed in names.items()})
        if link.row not in [target.row_id for target in rows if target.published_s]:
            text = f"{link.row!r} is no published latency of {cfg.model.name}; allowed: FILE:LINE"
            raise ConfigError(f"{key}.row", text)
        for end in ("low", "high"):
            for _, message in outside(replace(LinkConfig(), **{link.key: getattr(link, end)})):
                raise ConfigError(f"{key}.{end}", message)
        if not link.low < link.high:
            raise ConfigError(f"{key}.low", f"{link.low} is not below high={link.high}; allowed: less")


def model_targets(cfg: RunConfig) -> list[Target]:
    """The published runs of the model."""
    return [target for target in targets() if target.model == cfg.model.name]


def alone(rows: Sequence[Target], device: str) -> list[Target]:
    """Those of one such GPU."""
    return [t for t in rows if t.method == "serial" and t.cluster.split("_")[0] == device and t.published_s]


def drop_repeats(rows: Sequence[Target]) -> list[Target]:
    """Each number once, however often it is printed: the rows that repeat no other of them."""
    ids = {target.row_id for target in rows}
    return [target for target in rows if target.duplicate_of not in ids]


def resolve_target(target: Target, base: RunConfig) -> tuple[RunConfig, Model]:
    """The resolved configuration of a published row's run, and its model."""
    cfg = target_run(target, base)
    model = open_model(cfg.model)
    return resolved(cfg, model), model


def step_ops(cfg: RunConfig, model: Model) -> list[Op]:
    """The operations of one denoising step of the whole image on one device."""
    found: list[Op] = []
    assert cfg.cluster.hardware is not None and cfg.guidance_scale is not None
    meter, dit = Meter(cfg.cluster.hardware), model.view()
    scheduler = build_scheduler(model, cfg.scheduler, 1)
    fabric = SilentFabric(Mesh({}), 0, torch.device("meta"))
    noise, cond = empty_inputs(model.shape, 1, cfg.guidance_scale)
    sampler = assemble(dit, fabric, plain)
    with torch.inference_mode(), MetaMode(lambda: meter, watch=found.append):
        sampler(noise, cond, scheduler)
    return found


def fit_device(
    device: DeviceConfig, ops: Sequence[list[Op]], seconds: Sequence[float]
) -> tuple[float, float, list[float]]:
    """Efficiencies of matrix products and attention, and the relative error that is left in each row.

    `ops` of a step and published `seconds` of a step, row by row. Least squares of the logarithms on a fine grid:
    the two parts of the time add up, so that each is computed once.
    """

    def part(kind: str, row: list[Op]) -> np.ndarray:
        mine = [op for op in row if op.kind == kind]
        flops, moved = np.array([op.flops for op in mine]), np.array([op.bytes for op in mine])
        traffic = moved / (device.peak_bandwidth * device.bandwidth_efficiency)
        arithmetic = flops / device.peak_flops_16 / GRID[:, None]
        return np.maximum(arithmetic, traffic).sum(axis=1) + device.kernel_s * len(mine)

    error, ratios = np.zeros((len(GRID), len(GRID))), []
    for row, published in zip(ops, seconds, strict=True):
        fixed = sum(kernel_seconds(op, device) for op in row if op.kind == "rest")
        ratio = (part("matmul", row)[:, None] + part("attention", row)[None, :] + fixed) / published
        ratios.append(ratio)
        error += np.log(ratio) ** 2
    m, a = np.unravel_index(int(error.argmin()), error.shape)
    return float(GRID[m]), float(GRID[a]), [float(ratio[m, a]) - 1 for ratio in ratios]


def fit(cfg: RunConfig, out: Path) -> str:
    """Fit everything that `measure` names, write the files, and say what was found; returns the run's status."""
    options: FitConfig = cfg.measure
    rows = model_targets(cfg)
    fitted: list[tuple[float, float]] = []
    record: dict[str, Any] = {"devices": [], "links": []}
    for name in options.devices:
        printed = alone(rows, name)
        mine = drop_repeats(printed)
        configs = [resolve_target(target, cfg) for target in mine]
        device = configs[0][0].cluster.hardware
        assert device is not None
        ops = {model.resolution: step_ops(each, model) for each, model in configs}
        seconds = [target.published_s / target.steps for target in mine if target.published_s]
        matmul, attention, errors = fit_device(device, [ops[t.resolution] for t in mine], seconds)
        fitted.append((matmul, attention))
        ids = [target.row_id for target in printed]
        write_values(CONF / "device" / f"{name}.yaml", efficiencies(matmul, attention), ids, len(mine))
        worst = max(map(abs, errors))
        counted = f"{len(mine)} numbers in {len(ids)} rows"
        print(f"{name}: matmul {matmul:.3f}, attention {attention:.3f} of peak; {counted}, worst {worst:.1%}")
        record["devices"].append(
            {"name": name, **efficiencies(matmul, attention), "rows": ids}
            | {"numbers": [target.row_id for target in mine], "errors": errors}
        )
    for name in options.borrow:
        matmul, attention = (float(np.mean(column)) for column in zip(*fitted, strict=True))
        write_values(CONF / "device" / f"{name}.yaml", efficiencies(matmul, attention), [], 0)
        print(
            f"{name}: matmul {matmul:.3f}, attention {attention:.3f}: the mean of the fitted, no row of its own"
        )
    for link in options.links:
        value = fit_link(link, next(target for target in rows if target.row_id == link.row), cfg)
        for name in (link.name, *link.also):
            write_values(CONF / "link" / f"{name}.yaml", {link.key: value}, [link.row], 1)
            print(f"{name}: {link.key} {value:.4g} from {link.row}")
        record["links"].append({"name": link.name, "key": link.key, "value": value, "row": link.row})
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "fit.json", record | {"config": as_dict(cfg)} | provenance())
    return "ok"


def efficiencies(matmul: float, attention: float) -> dict[str, float]:
    return {"matmul_efficiency": matmul, "attention_efficiency": attention}


def fit_link(link: LinkFit, target: Target, base: RunConfig) -> float:
    """The value of the key with which the row is predicted exactly, by bisection."""
    cfg, _ = resolve_target(target, base)
    session = Session()
    low, high = link.low, link.high
    config = getattr(cfg.cluster.topology, link.place)
    published = target.published_s
    assert published is not None and config is not None

    def slow(value: float) -> bool:
        setattr(config, link.key, value)
        latency = plan(cfg, session).latency_s
        assert latency is not None
        return latency > published

    rises = slow(high)  # whether a larger value takes longer
    for _ in range(25):
        middle = (low + high) / 2
        if slow(middle) == rises:
            high = middle
        else:
            low = middle
    return high


def write_values(path: Path, values: dict[str, float], rows: Sequence[str], numbers: int) -> None:
    """Replace numbers in a configuration file, and the list of rows they were fitted on; everything else stays.

    Where the rows print fewer numbers than there are rows, that is said beside them.
    """
    text = path.read_text()
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^{key}: \S+", f"{key}: {value:.4g}", text)
        if not count:
            raise ValueError(f"{path} has no {key}")
    listed: Any = "[" + ", ".join(rows) + "]"
    listed += f"  # {numbers} numbers in {len(rows)} rows" if numbers < len(rows) else ""
    write_text(path, re.sub(r"(?ms)^calibrated_on:.*?(?=^\w|\Z)", f"calibrated_on: {listed}\n", text))
