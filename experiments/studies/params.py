"""`measure=params`: the layers, parameters and K, V of every device: accounting of parts that are built and not run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from analysis.records.study import Record
from analysis.runs.answer import answer
from experiments.config import RunConfig
from experiments.errors import ConfigError
from experiments.session import Session
from experiments.studies.accounting import ACCOUNTING, AccountingConfig, facts
from experiments.studies.accounting import summary as how_many_add_up
from pipefusion.core.domain import Devices

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
class ParamsConfig(AccountingConfig):
    """The grid of accounting, and the case of PipeFusion that is printed."""

    name: str = "params"
    run: bool = False
    literal: Literal = field(default_factory=Literal)


def check_literal(cfg: RunConfig, session: Session) -> None:
    """Raises ConfigError for a case that is not in the grid."""
    options: ParamsConfig = cfg.measure
    for key, given, known in (
        ("model", options.literal.model, options.models or [cfg.model.name]),
        ("devices", options.literal.devices, options.devices),
    ):
        if given not in known:
            text = f"{given} is not measured; allowed: {', '.join(map(str, known))}"
            raise ConfigError(f"measure.literal.{key}", text)


def literal(record: Record) -> pd.DataFrame:
    """The devices of the one case."""
    case, rows = record.facts["literal"], record.rows
    piped = (rows.method == "pipefusion") & (rows.status == "ok")
    return rows[piped & (rows.model == case["model"]) & (rows.devices == case["devices"])]


def summary(record: Record) -> str:
    """The answer of each device, and how many cases add up."""
    (tokens,) = record.facts["models"][record.facts["literal"]["model"]]["tokens"].values()
    rows = literal(record)
    return "\n".join([*([answer(rows, tokens)] if len(rows) else []), how_many_add_up(record)])


def params_facts(cfg: RunConfig, rows: pd.DataFrame, session: Session) -> dict[str, Any]:
    """Sizes of the models, and the case that is printed."""
    return facts(cfg, rows, session) | {"literal": vars(cfg.measure.literal)}


PARAMS = replace(
    ACCOUNTING,
    name="params",
    columns=(
        *("rank", "layers", "param_bytes", "model_share", "block_share", "replicated_param_bytes"),
        "kv_bytes",
    ),
    title="PipeFusion, device by device",
    note=NOTE,
    facts=params_facts,
    shown=literal,
    summary=summary,
    check=check_literal,
)
