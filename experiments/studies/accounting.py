"""`measure=accounting`: what every device of every model, method, N and size holds and sends, to the byte.

The methods' own code runs on stock diffusers models of full size whose tensors are on `meta`: parameters are counted by
name and slice, messages in the ledger, and live bytes with every operation. With `measure.run=false` the parts are only
built, and K, V and bytes sent are the closed forms that tests hold equal to the ledger.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import diffusers
import pandas as pd
import torch

from analysis.presentation.columns import COUNT, Column
from analysis.records.study import Record
from experiments.config import RunConfig
from experiments.errors import ConfigError, check_known
from experiments.facts import model_facts
from experiments.grid import GridConfig, expand
from experiments.journal import Row
from experiments.methods import METHODS, parallel_degrees
from experiments.models.model import Model
from experiments.runs.check import CHOICES
from experiments.runs.plan import plan
from experiments.runs.report import ParameterKey, RankReport, held_parameters, layers_text
from experiments.session import Session, empty_inputs, guidance_branches
from experiments.study import Cell, Study
from pipefusion.core.dit import DiT
from pipefusion.core.domain import Devices, Grid, PatchCounts, Threads, Warmups
from pipefusion.core.predict import Prediction
from pipefusion.core.silent import SilentFabric
from pipefusion.families import VIEWS
from pipefusion.sim.plan import META

HELD_TO = ("reconciles", "agrees")
"""What a case must be: its devices hold the model exactly, and every byte is the one of the closed forms."""
SETTLED = 3
"""Steps after the warm-up: from then on each allocates and, but for the last, sends what the one before it did."""
NOTE = (
    "Counted on meta tensors by the methods' own code, one image at a time (with classifier-free guidance two "
    "branches). Activations are the peak of all live tensors less parameters, K and V kept between steps, other "
    "buffers, communication buffers, and what is given (tables of positions, noise, prompt). PipeFusion has one patch "
    "per device. Sent per step: the bytes of a step after the warm-up, each device its own messages."
)


@dataclass
class AccountingConfig(GridConfig):
    """The grid; `dtype` null is each model's own. `run`: also what is alive and sent while steps are run.

    `workers` null: a process for each core.
    """

    name: str = "accounting"
    methods: Grid[str] = field(default_factory=lambda: list(METHODS))
    devices: Grid[Devices] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    patches: list[PatchCounts] = field(default_factory=lambda: ["N"])
    warmups: list[Warmups] = field(default_factory=lambda: [1])
    crosses: list[str] = field(default_factory=lambda: ["split"])
    dtype: str | None = None
    run: bool = True
    workers: Threads | None = None


def counted(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """The runs of the grid, as long as it takes for a step to be like the one before it."""
    options: AccountingConfig = cfg.measure
    for one in expand(cfg, options):
        model = replace(one.model, dtype=options.dtype or one.model.dtype)
        rounds = SETTLED * parallel_degrees(one).step
        steps = rounds + getattr(one.method, "warmup", 0) if options.run else one.steps
        yield replace(one, model=model, steps=steps)


def measure(cell: Cell, session: Session) -> list[Row]:
    """A row per device: what it holds and sends, and whether all add up to the model and to the closed forms."""
    cfg, view = cell.cfg, session.view(cell.cfg.model)
    parts, counts, agrees = count_run(cfg, session) if cfg.measure.run else count_parts(cfg, session)
    held = [held_parameters(dit) for dit in parts]
    holders = Counter(key for keys in held for key in keys)
    whole, case = held_parameters(view), {"agrees": agrees} | totals(held, view)
    rows = []
    for rank, (dit, mine, numbers) in enumerate(zip(parts, held, counts, strict=True)):
        shared = {key: size for key, size in mine.items() if holders[key] > 1}
        blocks = [bytes_by_part(sizes, view).get("blocks", 0) for sizes in (mine, whole)]
        row: Row = {
            "rank": rank,
            "branches": guidance_branches(cfg, view.shape),
            "layers": layers_text(dit.layers),
        }
        row |= {
            "layer_count": len(dit.layers),
            "block_param_bytes": blocks[0],
            "block_share": blocks[0] / blocks[1],
        }
        row |= {"replicated_param_bytes": sum(shared.values()), "param_bytes": sum(mine.values())}
        row |= {"model_share": row["param_bytes"] / case["model_bytes"]}
        rows.append(row | {"replicated": ", ".join(bytes_by_part(shared, view))} | numbers | case)
    return rows


def count_run(cfg: RunConfig, session: Session) -> tuple[list[DiT], list[Row], bool]:
    """The parts, what each holds by kind and sends in a step, and whether every byte is its closed form's."""
    reports, parallel = plan(cfg, session).reports, parallel_degrees(cfg)
    shape, method, settings = session.model(cfg.model).shape, METHODS[cfg.method.name], cfg.method
    assert cfg.guidance_scale is not None
    noise, cond = empty_inputs(shape, 1, cfg.guidance_scale)
    given = sum(tensor.nbytes for tensor in [noise, *cond.tensors])
    counts, agrees = [], True
    for report in reports:
        row = bytes_by_kind(report, given, cfg.steps, parallel.step)
        before = cfg.steps - parallel.step
        earlier = method.predict(shape, parallel, report.rank, before, 1, cond.branches, settings)
        agrees &= row.items() >= forms(report.forecast, earlier, parallel.step).items()
        counts.append(row)
    return [report.dit for report in reports], counts, agrees


def count_parts(cfg: RunConfig, session: Session) -> tuple[list[DiT], list[Row], bool]:
    """The parts, built and not run, with the closed forms of K, V and of all bytes sent."""
    parallel, shape = parallel_degrees(cfg), session.model(cfg.model).shape
    mesh, branches = parallel.mesh(), guidance_branches(cfg, shape)
    parts, counts = [session.build(cfg, SilentFabric(mesh, rank, META))[0] for rank in range(mesh.size)], []
    for rank in range(mesh.size):
        form = METHODS[cfg.method.name].predict(shape, parallel, rank, cfg.steps, 1, branches, cfg.method)
        row = {"kv_bytes": form.kv_bytes, "sent_bytes": form.sent_bytes}
        counts.append(row | {"predicted_param_bytes": form.param_bytes})
    pairs = zip(parts, counts, strict=True)
    return (
        parts,
        counts,
        all(sum(held_parameters(dit).values()) == row["predicted_param_bytes"] for dit, row in pairs),
    )


def bytes_by_kind(report: RankReport, given: int, steps: int, round_steps: int) -> dict[str, int]:
    """What a device holds by kind, which add up to its peak, and what it sends and receives in a step of a round."""
    assert report.peak_bytes is not None
    kept = report.ledger.buffer_bytes
    counts = {"param_bytes": sum(held_parameters(report.dit).values())}
    counts |= {"kv_bytes": kept["kv"], "buffer_bytes": kept["buffer"], "comm_bytes": kept["comm"]}
    counts["given_bytes"] = given + sum(tensor.nbytes for tensor in report.dit.model.buffers())
    counts["activation_bytes"] = report.peak_bytes - sum(counts.values())
    counts["peak_bytes"] = report.peak_bytes
    # The last step may send less: what comes after it is not waited for.
    window = range(steps - 1 - round_steps, steps - 1)
    entries = [entry for entry in report.ledger.entries if entry.at.step in window]
    counts["step_sent_bytes"] = sum(entry.sent_bytes for entry in entries) // round_steps
    return counts | {"step_recv_bytes": sum(entry.recv_bytes for entry in entries) // round_steps}


def forms(forecast: Prediction, earlier: Prediction, round_steps: int) -> dict[str, int]:
    """The closed forms of a device's bytes; those of a step are a share of the difference to a run of a round less."""
    found = {
        f"{kind}_bytes": getattr(forecast, f"{kind}_bytes") for kind in ("param", "kv", "buffer", "comm")
    }
    steps = ("sent_bytes", "recv_bytes")
    return found | {
        f"step_{key}": (getattr(forecast, key) - getattr(earlier, key)) // round_steps for key in steps
    }


def totals(held: Sequence[Mapping[ParameterKey, int]], view: DiT) -> Row:
    """Bytes of all devices, of the copies among them (by part, as JSON), and whether the rest is the model exactly."""
    holders = Counter(key for keys in held for key in keys)
    every, whole = {key: size for mine in held for key, size in mine.items()}, held_parameters(view)
    extra = {key: size * (holders[key] - 1) for key, size in every.items() if holders[key] > 1}
    once: Counter[str] = Counter()
    for (name, _), size in every.items():
        once[name] += size
    return {
        "devices_bytes": sum(sum(mine.values()) for mine in held),
        "copies_bytes": sum(extra.values()),
        "copied": json.dumps(bytes_by_part(extra, view)),
        "model_bytes": sum(whole.values()),
        "reconciles": dict(once) == {name: size for (name, _), size in whole.items()},
    }


def bytes_by_part(sizes: Mapping[ParameterKey, int], view: DiT) -> dict[str, int]:
    """Bytes by part of the model, the largest first."""
    parts: Counter[str] = Counter()
    for (name, _), size in sizes.items():
        parts[view.parameter_label(name)] += size
    return dict(parts.most_common())


def facts(cfg: RunConfig, rows: pd.DataFrame, session: Session) -> dict[str, Any]:
    """The sizes of every model, and its parameters in the stock class, less what its view leaves out."""
    found: dict[str, Any] = {}
    for one in {repr(one.model): one.model for one in counted(cfg, session)}.values():
        try:
            model = session.model(one)
            shape = model.shape
        except ValueError:  # a size that the model does not have: its rows say so
            continue
        sizes = found.setdefault(one.name, model_facts(model) | stock(model) | {"tokens": {}})
        sizes["tokens"][str(model.resolution or model.height)] = shape.tokens
    return {"images": 1, "dtype": cfg.measure.dtype, "models": found}


def stock(model: Model) -> dict[str, Any]:
    """What tables need of a model besides its sizes."""
    with torch.device("meta"):
        network = getattr(diffusers, model.class_name).from_config(model.config)
    VIEWS[model.class_name].View.leave_out(network)
    shape = model.shape
    parameters = network.num_parameters() * shape.transformers
    more = {"class": model.class_name, "guidance": shape.guidance, "text_tokens": shape.text_tokens}
    more |= {"height": model.height, "width": model.width, "frames": model.frames}
    return more | {"joint": shape.joint, "diffusers_parameters": parameters}


def failures(rows: pd.DataFrame) -> list[str]:
    """The cases that do not add up."""
    ran = rows[rows.status == "ok"].drop_duplicates("key")
    return [
        f"{row['model']} {row['method']} N={row['devices']} {row['height']} px: not {key}"
        for row in ran.to_dict("records")
        for key in HELD_TO
        if not row[key]
    ]


def by_model(record: Record) -> pd.DataFrame:
    """One row per model: how many cases ran, add up, are the closed forms', and are skipped."""
    cases = record.rows.drop_duplicates("key")
    ran = cases.assign(cases=cases.status == "ok", skipped=cases.status == "skipped")
    counts = ran.groupby("model", sort=False)[["cases", *HELD_TO, "skipped"]].sum().reset_index()
    parameters = {name: one["parameters"] for name, one in record.facts["models"].items()}
    return counts.assign(parameters=counts.model.map(parameters))


def summary(record: Record) -> str:
    """How many cases add up."""
    ran = record.rows[record.rows.status == "ok"].drop_duplicates("key")
    return (
        f"In {int(ran.reconciles.sum())} of {len(ran)} cases what the devices hold, less the copies, is diffusers' own "
        f"count of the model to the byte; in {int(ran.agrees.sum())} every byte is the closed form's."
    )


def check_dtype(cfg: RunConfig, session: Session) -> None:
    """Raises ConfigError for a dtype that does not exist, and for a cluster without a meter."""
    if cfg.measure.dtype is not None:
        check_known(cfg, {"measure.dtype": CHOICES["model.dtype"]})
    if cfg.measure.run and cfg.cluster.world != "plan":
        raise ConfigError(
            "cluster", f"{cfg.cluster.name} runs on real tensors; allowed: a cluster of named hardware"
        )


ACCOUNTING = Study(
    "accounting",
    measure,
    (
        "model",
        "parameters",
        *(Column(name, name.replace("_", " "), kind=COUNT) for name in ("cases", *HELD_TO, "skipped")),
    ),
    "Cases (model, size, method, N, W) that ran, add up to the model, and agree with the closed forms",
    NOTE,
    grid=counted,
    facts=facts,
    failures=failures,
    shown=by_model,
    summary=summary,
    check=check_dtype,
)
