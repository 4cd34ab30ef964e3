"""What a rank of any world writes about itself: its row of ranks.csv, its seconds, its ledger, its timeline."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.files import replacing, write_text
from pipefusion.core.dit import DiT, parameter_parts
from pipefusion.core.ledger import Entry, Ledger, Span
from pipefusion.core.predict import Prediction

ParameterKey = tuple[str, Any]
"""A parameter's name and the slice of it that is held, if not all of it."""


@dataclass
class RankReport:
    """One rank of a finished run. `repeats` holds the seconds of each timed image by kind; bytes are of the last."""

    rank: int
    dit: DiT
    ledger: Ledger
    repeats: Sequence[Mapping[str, float | None]]
    forecast: Prediction
    ready_unix_s: float
    peak_bytes: int | None = None
    predicted_peak_bytes: int | None = None
    accelerator: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def held_parameters(dit: DiT) -> dict[ParameterKey, int]:
    """Bytes of each parameter (or slice) on this rank."""
    return {
        (name, dit.shards.get(name)): parameter.numel() * parameter.element_size()
        for name, parameter in dit.model.named_parameters()
    }


def rank_row(report: RankReport, elsewhere: set[ParameterKey]) -> dict[str, Any]:
    """The row of ranks.csv. `elsewhere`: the parameters that other ranks hold, which makes them replicated."""
    mine, parts, ledger = held_parameters(report.dit), parameter_parts(report.dit), report.ledger
    counts = {key: value for key, value in asdict(report.forecast).items() if key.endswith("_bytes")}
    by_axis = counts.pop("axis_bytes")
    forecast = {f"predicted_{key}": value for key, value in counts.items()}
    return {
        "rank": report.rank,
        "layers": layers_text(report.dit.layers),
        "layer_count": len(report.dit.layers),
        "param_bytes": sum(mine.values()),
        "replicated_param_bytes": sum(size for key, size in mine.items() if key in elsewhere),
        "block_param_bytes": sum(size for part, size in parts.items() if part.startswith("block")),
        "kv_bytes": ledger.buffer_bytes["kv"],
        "buffer_bytes": ledger.buffer_bytes["buffer"],
        "comm_bytes": ledger.buffer_bytes["comm"],
        "peak_bytes": report.peak_bytes,
        "sent_bytes": ledger.sent_bytes,
        "recv_bytes": ledger.recv_bytes,
        "computed_steps": ledger.computed_steps,
        "found_warmup": ledger.warmup,
        **{f"sent_{axis}_bytes": count for axis, count in ledger.axis_bytes.items()},
        **report.repeats[-1],
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **forecast,
        **{f"predicted_sent_{axis}_bytes": count for axis, count in by_axis.items()},
        "predicted_peak_bytes": report.predicted_peak_bytes,
        **report.extra,
    }


def write_report(
    run_dir: Path, report: RankReport, elsewhere: set[ParameterKey], ledger: bool = True
) -> None:
    """Write `.rank-R.json` and, with `ledger`, `.rank-R.ledger.parquet` and `.rank-R.timeline.parquet`."""
    rank = report.rank
    record = {
        "row": rank_row(report, elsewhere),
        "repeats": list(report.repeats),
        "parts": dict(parameter_parts(report.dit)),
        "ready_unix_s": report.ready_unix_s,
        "accelerator": report.accelerator,
    }
    if ledger:
        tables: dict[str, list[Entry] | list[Span]] = {
            "ledger": report.ledger.entries,
            "timeline": report.ledger.spans,
        }
        for name, items in tables.items():
            frame = pd.DataFrame([item.row(rank) for item in items])
            with replacing(run_dir / f".rank-{rank}.{name}.parquet") as temporary:
                frame.to_parquet(temporary, index=False)
    write_text(run_dir / f".rank-{rank}.json", json.dumps(record))


def layers_text(layers: range) -> str:
    """`3-5`, `3`, or `-` for none."""
    if not layers:
        return "-"
    return f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else str(layers[0])
