"""What is counted at full size, to the byte: parameters, KV, activations and messages of every device."""

from __future__ import annotations

from pathlib import Path

from analysis import accounting as accounts
from analysis import accounting_figure, params, style
from analysis import text_variants as texts
from analysis.output import Output
from analysis.study import load_study


def params_per_device(results: Path) -> list[Path]:
    """Layers, parameters and KV of every device, by model and method: PipeFusion cuts the layers, so a device holds
    about 1/N of them; counted on meta tensors, records/params."""
    record, table = params.load(results / "records/params")
    written = params.save(record, table, results / "tables", "params_per_device")
    return written + style.save(params.figure(record, table), results / "figures", "params_per_device")


def accounting(results: Path) -> list[Path]:
    """Parameters, KV, activations and bytes sent of every device of full-size models, counted on meta tensors
    (records/accounting), with the formulas of the paper's Table 1 (published) beside what is counted."""
    record, table = accounts.load(results / "records/accounting")
    written = accounts.save(record, table, results, "accounting")
    return written + style.save(accounting_figure.figure(record, table), results / "figures", "accounting")


def text_variants(results: Path) -> list[Path]:
    """An MM-DiT's prompt between stages, sent with every patch (exact) or with the first of a step (as published):
    distance to serial, measured on small models, and bytes at full size; records/text."""
    record = load_study(results / "records/text")
    return texts.save(record, results / "tables")


OUTPUTS = [
    Output(
        params_per_device,
        ("records/params",),
        ("python run.py experiment=params_per_device",),
        "Section 3, Table 1",
        "paper_params",
    ),
    Output(
        accounting,
        (
            "records/accounting",
            accounts.WHOLE,
            "published/table1_costs.csv",
        ),
        ("python run.py experiment=accounting", "python run.py experiment=paper/table1_tensor"),
        "Table 1",
    ),
    Output(text_variants, ("records/text",), ("python run.py experiment=text_variants",)),
]
