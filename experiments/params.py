"""`measure=params`: what each device holds of a model, by method and number of devices.

The parameters are measured: every rank's method builds its part of the stock diffusers model on `meta`, and what is
left is counted, each tensor by its name and slice. K, V and bytes sent are the methods' closed forms, which tests
hold equal to measurement to the byte; running whole images here would add hours and no digit.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from experiments.config import RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, check_known, config_names
from experiments.facts import model_facts
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models import Model, open_model
from experiments.records import write_csv, write_json
from experiments.report import ParameterKey, held_parameters, layers_text
from pipefusion.core.dit import DiT
from pipefusion.core.domain import Devices, Grid
from pipefusion.core.silent import SilentFabric

NOTE = (
    "Parameters are counted in each rank's own part of the stock diffusers model, built on meta tensors; KV and sent "
    "bytes are closed forms that tests hold equal to measurement, with guidance on (batch 2) at the model's own "
    "resolution. Replicated: what another device holds too, embeddings of time and text above all."
)


@dataclass
class Literal:
    """The one case that is printed device by device."""

    model: str = "dit_48"
    devices: Devices = 4


@dataclass
class ParamsConfig:
    """`models` are files of conf/model, `most_devices` the largest N, `summary` the N printed for each model."""

    name: str = "params"
    models: Grid[str] = field(default_factory=lambda: ["emoji64"])
    methods: Grid[str] = field(default_factory=lambda: ["pipefusion", "distrifusion", "tensor"])
    most_devices: Devices = 16
    literal: Literal = field(default_factory=Literal)
    summary: list[Devices] = field(default_factory=lambda: [4, 8])


def check_params(cfg: RunConfig) -> None:
    """Names that do not exist, and numbers that count nothing. Raises ConfigError."""
    options: ParamsConfig = cfg.measure
    check_known(cfg, {"measure.models": config_names("model"), "measure.methods": [*METHODS]})
    if options.literal.model not in options.models:
        text = f"{options.literal.model} is not measured; allowed: {', '.join(options.models)}"
        raise ConfigError("measure.literal.model", text)
    if not 1 <= options.literal.devices <= options.most_devices:
        text = f"{options.literal.devices} is not measured; allowed: 1..{options.most_devices}"
        raise ConfigError("measure.literal.devices", text)


def params(cfg: RunConfig, out: Path) -> str:
    """Measure every combination into `params.json` and `params.csv` in `out`, print the answer; the run's status."""
    import pandas as pd

    options: ParamsConfig = cfg.measure
    rows: list[dict[str, Any]] = []
    cases: list[dict[str, Any]] = []
    facts: dict[str, dict[str, Any]] = {}
    for name in options.models:
        model = open_model(model_config(name))
        facts[name] = model_facts(model)
        for method in options.methods:
            subject = Subject(model, method, cfg.steps)
            for devices in range(1, options.most_devices + 1):
                found, case = subject.measure(devices)
                place = {"model": name, "method": method, "devices": devices}
                rows += [place | row for row in found]
                cases.append(place | case)
    record = {"note": NOTE, "models": facts, "cases": cases, "literal": as_dict(cfg)["measure"]["literal"]}
    record |= provenance() | {"config": as_dict(cfg)}
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "params.csv", pd.DataFrame(rows))
    write_json(out / "params.json", record)
    show(out, options)
    wrong = [case for case in cases if case["status"] == "ok" and not case["reconciles"]]
    for case in wrong:
        where = f"{case['model']} {case['method']} N={case['devices']}"
        print(f"failed: {where}: the devices do not hold the model exactly", file=sys.stderr)
    return "failed" if wrong else "ok"


class Subject:
    """One model under one method."""

    def __init__(self, model: Model, method: str, steps: int):
        self.model, self.steps = model, steps
        self.method = METHODS[method]
        self.cfg = self.method.Config()
        self.view: DiT | None = model.view()
        self.label_of = self.view.label_of
        self.whole = held_parameters(self.view)

    def build(self, devices: int, rank: int) -> DiT:
        """The part of the model that the method leaves on this rank."""
        view = self.view or self.model.view()
        self.view = None
        fabric = SilentFabric(self.method.parallel(devices).mesh(), rank, torch.device("meta"))
        self.method.build(view, fabric, self.cfg)
        if held_parameters(view) == self.whole:
            self.view = view  # as it was, so that the next rank can have it
        return view

    def measure(self, devices: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """One row a device, and the case's totals; a row and totals that say `skipped` where it cannot be."""
        shape = self.model.shape
        problem = self.method.problem(shape, devices, self.steps, self.cfg)
        if problem:
            skipped = {"status": "skipped", "reason": f"{problem.key}={problem.message}"}
            return [{"rank": None, **skipped}], skipped
        parallel = self.method.parallel(devices)
        held, layers = [], []
        for rank in range(devices):
            view = self.build(devices, rank)
            held.append(held_parameters(view))
            layers.append(view.layers)
        holders = Counter(key for keys in held for key in keys)
        rows = []
        for rank, mine in enumerate(held):
            forecast = self.method.predict(shape, parallel, rank, self.steps, 1, 2, self.cfg)
            shared = {key: size for key, size in mine.items() if holders[key] > 1}
            rows.append(
                {
                    "rank": rank,
                    "status": "ok",
                    "reason": None,
                    "layers": layers_text(layers[rank]),
                    "layer_count": len(layers[rank]),
                    "param_bytes": sum(mine.values()),
                    "model_share": sum(mine.values()) / sum(self.whole.values()),
                    "block_param_bytes": self.in_blocks(mine),
                    "block_share": self.in_blocks(mine) / self.in_blocks(self.whole),
                    "replicated_param_bytes": sum(shared.values()),
                    "replicated": ", ".join(self.by_name(shared)),
                    "kv_bytes": forecast.kv_bytes,
                    "sent_bytes": forecast.sent_bytes,
                    "predicted_param_bytes": forecast.param_bytes,
                }
            )
        return rows, self.totals(held, holders)

    def totals(self, held: list[dict[ParameterKey, int]], holders: Counter[ParameterKey]) -> dict[str, Any]:
        """Bytes of all devices, of the copies among them, and whether the rest is the model, tensor by tensor."""
        every = {key: size for mine in held for key, size in mine.items()}
        extra = {key: size * (holders[key] - 1) for key, size in every.items() if holders[key] > 1}
        once: Counter[str] = Counter()
        for (name, _), size in every.items():
            once[name] += size
        return {
            "status": "ok",
            "reason": None,
            "devices_bytes": sum(sum(mine.values()) for mine in held),
            "copies_bytes": sum(extra.values()),
            "copies_by_part": self.by_name(extra),
            "model_bytes": sum(self.whole.values()),
            "reconciles": dict(once) == {name: size for (name, _), size in self.whole.items()},
        }

    def by_name(self, sizes: dict[ParameterKey, int]) -> dict[str, int]:
        """Bytes by part of the model, the largest first."""
        parts: Counter[str] = Counter()
        for (name, _), size in sizes.items():
            parts[self.label_of(name)] += size
        return dict(parts.most_common())

    def in_blocks(self, sizes: dict[ParameterKey, int]) -> int:
        """Bytes of the parameters in the transformer's blocks."""
        return self.by_name(sizes).get("blocks", 0)


def show(out: Path, options: ParamsConfig) -> None:
    """Print the literal case device by device, a line for every model, and whether everything adds up."""
    # Here and not above: the configuration is imported by every command, matplotlib by those that need it.
    from analysis import params as report
    from analysis.style import label
    from analysis.terminal import make_console, rich_table
    from experiments.cli import display
    from experiments.quickstart import answer

    console = make_console()
    record, table = report.load(out)
    literal = report.literal(record, table)
    if not literal.empty:
        title = f"{options.literal.model}: {record['models'][options.literal.model]['layers']} layers"
        title += f" on {options.literal.devices} devices, {label(literal.method.iloc[0])}"
        console.print(rich_table(report.literal_text(literal), title))
        tokens = record["models"][options.literal.model]["tokens"]
        console.print(answer(literal, tokens), style="bold", highlight=False)
        console.print(report.sums(record), highlight=False)
    summary = report.fullest(record, table, options.summary)
    title = "The fullest device: share of the model's parameters, and KV"
    console.print(rich_table(report.fullest_text(summary), title))
    console.print(f"{report.reconciled(record)}\n[dim]{NOTE}[/dim]", highlight=False)
    for name in ("params.csv", "params.json"):
        console.print(display(out / name), highlight=False, soft_wrap=True)
