"""`measure=fit`: the numbers of the cost model from published rows, written into conf/device, conf/link and conf/host.

A device has two fitted numbers, what matrix products and what attention reach of the peak, from the rows of one such
GPU alone. A term of a link or a host has one number for all methods and models, from one row each: all of them together
are those with which every row is predicted exactly, in whatever order they are given. All else is a datasheet's number
or one assumption for all hardware. What was fitted on is listed beside the values.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.records.files import write_text
from experiments.calibration.roots import solve
from experiments.config import CONF, RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, check_known, config_names
from experiments.grid import cluster_config
from experiments.models.model import Model, open_model, resolved
from experiments.models.scheduler import build_scheduler
from experiments.published import Target, target_run, targets
from experiments.records import write_json
from experiments.runs.plan import plan
from experiments.session import Session, empty_inputs
from pipefusion.core.denoise import assemble
from pipefusion.core.domain import Number, outside
from pipefusion.core.mesh import Mesh
from pipefusion.core.sequence import plain
from pipefusion.core.silent import SilentFabric
from pipefusion.sim.cost import Op, computed_flops, kernel_seconds, traffic_seconds
from pipefusion.sim.hardware import DeviceConfig, HostConfig
from pipefusion.sim.meta import MetaMode
from pipefusion.sim.meter import Meter
from pipefusion.sim.network import LinkConfig

LINK = (
    "bandwidth",
    "latency_s",
    "efficiency",
    "stream_bandwidth",
    "congestion",
    "contention",
    "message_contention",
)
HOST = ("launch_s", "call_s", "message_s", "batch_s", "unfused")
PLACES = ("port", "root", "card", "host")
GRID = np.geomspace(0.05, 1.0, 400)


@dataclass
class TermFit:
    """One number from one published row: `key` of conf/link/NAME.yaml, or of conf/host/, between `low` and `high`."""

    name: str
    key: str
    row: str
    place: str  # where the cluster has this link: port, root or card; or host
    low: Number
    high: Number
    also: list[str] = field(default_factory=list)  # other links that share the number

    @property
    def folder(self) -> str:
        return "host" if self.place == "host" else "link"


@dataclass
class FitConfig:
    """Which devices have rows of their own, which borrow the mean of theirs, and the terms of links and hosts.

    `borrow_attention`: those of `borrow` for whose attention no source has a number either.
    """

    name: str = "fit"
    devices: list[str] = field(default_factory=lambda: ["t4", "l20", "l40", "a100"])
    borrow: list[str] = field(default_factory=lambda: ["h100", "h200", "rtx4090"])
    borrow_attention: list[str] = field(default_factory=lambda: ["rtx4090"])
    terms: list[TermFit] = field(default_factory=list)


def check_fit(cfg: RunConfig) -> None:
    """Devices, links and rows that do not exist, devices without rows of their own. Raises ConfigError."""
    options: FitConfig = cfg.measure
    devices, rows = config_names("device"), [target for target in targets() if target.published_s]
    if not options.devices and (options.borrow or not options.terms):
        raise ConfigError("measure.devices", "[] leaves nothing to fit; allowed: files of conf/device")
    check_known(cfg, {f"measure.{key}": devices for key in ("devices", "borrow", "borrow_attention")})
    for name in options.devices:
        if not alone(model_targets(cfg), name):
            text = f"{name} has no published row of one GPU with {cfg.model.name}; allowed: measure.borrow"
            raise ConfigError("measure.devices", text)
    for index, term in enumerate(options.terms):
        key = f"measure.terms.{index}"
        check_known(cfg, {f"{key}.place": PLACES})
        files, keys = config_names(term.folder), HOST if term.place == "host" else LINK
        check_known(cfg, {f"{key}.name": files, f"{key}.also": files, f"{key}.key": keys})
        if term.row not in [target.row_id for target in rows]:
            raise ConfigError(f"{key}.row", f"{term.row!r} is no published latency; allowed: FILE:LINE")
        kind = HostConfig() if term.place == "host" else LinkConfig()
        for end in ("low", "high"):
            for _, message in outside(replace(kind, **{term.key: getattr(term, end)})):
                raise ConfigError(f"{key}.{end}", message)
        if not term.low < term.high:
            raise ConfigError(f"{key}.low", f"{term.low} is not below high={term.high}; allowed: less")


def model_targets(cfg: RunConfig) -> list[Target]:
    """The published runs of the model."""
    return [target for target in targets() if target.model == cfg.model.name]


def alone(rows: Sequence[Target], device: str) -> list[Target]:
    """Those of one such GPU, not compiled."""
    mine = [t for t in rows if t.method == "serial" and t.cluster.split("_")[0] == device and t.published_s]
    return [target for target in mine if target.host == "eager"]


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
        flops = np.array([computed_flops(op, device.multiprocessors) for op in mine])
        traffic = np.array([traffic_seconds(op, device) for op in mine])
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
    record: dict[str, Any] = {"devices": [], "terms": []}
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
        mean = efficiencies(*(float(np.mean(column)) for column in zip(*fitted, strict=True)))
        if name not in options.borrow_attention:
            del mean["attention_efficiency"]
        write_values(CONF / "device" / f"{name}.yaml", mean, [], 0)
        means = ", ".join(f"{key} {value:.3f}" for key, value in mean.items())
        print(f"{name}: {means}: the mean of the fitted, no row of its own")
    listed: dict[Path, list[str]] = defaultdict(list)
    for term, (value, error) in zip(options.terms, fit_terms(options.terms, cfg), strict=True):
        for name in (term.name, *term.also):
            path = CONF / term.folder / f"{name}.yaml"
            listed[path].append(term.row)
            write_values(path, {term.key: value}, listed[path], len(listed[path]))
            print(f"{name}: {term.key} {value:.4g} from {term.row}, off by {error:.2%}")
        record["terms"].append(
            {"name": term.name, "key": term.key, "value": value, "row": term.row, "error": error}
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "fit.json", record | {"config": as_dict(cfg)} | provenance())
    return "ok"


def efficiencies(matmul: float, attention: float) -> dict[str, float]:
    return {"matmul_efficiency": matmul, "attention_efficiency": attention}


def fit_terms(terms: Sequence[TermFit], base: RunConfig) -> list[tuple[float, float]]:
    """The values with which all rows are predicted at once, and the relative error that is left in each term's row."""
    cluster_config.cache_clear()  # devices have been written
    rows, session = {target.row_id: target for target in targets()}, Session()
    runs = [resolve_target(rows[term.row], base)[0] for term in terms]

    def error(index: int, values: Sequence[float]) -> float:
        latency = plan(with_values(runs[index], terms, values), session).latency_s
        published = rows[terms[index].row].published_s
        assert latency is not None and published is not None
        return latency / published - 1

    values = solve(error, [(term.low, term.high) for term in terms])
    return [(value, error(index, values)) for index, value in enumerate(values)]


def with_values(cfg: RunConfig, terms: Sequence[TermFit], values: Sequence[float]) -> RunConfig:
    """A run on hosts and links that have these values."""
    cluster = deepcopy(cfg.cluster)
    for term, value in zip(terms, values, strict=True):
        part = cluster.hosts[term.name] if term.place == "host" else getattr(cluster.topology, term.place)
        if part is not None and part.name in (term.name, *term.also):
            setattr(part, term.key, value)
    return replace(cfg, cluster=cluster)


def write_values(path: Path, values: dict[str, float], rows: Sequence[str], numbers: int) -> None:
    """Replace numbers in a configuration file, and the list of rows they were fitted on; everything else stays.

    Where the rows print fewer numbers than there are rows, that stands beside them.
    """
    text = path.read_text()
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^{key}: \S+", f"{key}: {value:.4g}", text)
        if not count:
            raise ValueError(f"{path} has no {key}")
    listed: Any = "[" + ", ".join(rows) + "]"
    listed += f"  # {numbers} numbers in {len(rows)} rows" if numbers < len(rows) else ""
    write_text(path, re.sub(r"(?ms)^calibrated_on:.*?(?=^\w|\Z)", f"calibrated_on: {listed}\n", text))
