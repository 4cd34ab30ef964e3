"""What is counted at full size, to the byte: parameters, KV, activations and messages of every device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.memory import accounting as accounts
from analysis.memory import accounting_figure, params
from analysis.methods import text_variants as texts
from analysis.output import Output
from analysis.presentation.style import Drawing
from analysis.presentation.tables import Table, markdown
from analysis.records.committed import ACCOUNTING, ACCOUNTING_2026, PARAMS, TEXT, WHOLE
from analysis.records.study import load_study


def params_per_device(results: Path) -> Sequence[Table | Drawing]:
    """Layers, parameters and KV of every device, by model and method: PipeFusion cuts the layers, so a device holds
    about 1/N of them; counted on meta tensors, records/params."""
    record, table = params.load(results / PARAMS)
    return [
        params.tabulate(record, table),
        Drawing(params.figure(record, table, "model_share")),
        Drawing(params.figure(record, table, "kv_bytes"), "_kv"),
    ]


def accounting(results: Path) -> Sequence[Table | Drawing]:
    """Parameters, KV, activations and bytes sent of every device of full-size models, counted on meta tensors
    (records/accounting), with the formulas of the paper's Table 1 (published) beside what is counted."""
    record, table = accounts.load(results / ACCOUNTING)
    return [accounts.tabulate(record, table, results), Drawing(accounting_figure.figure(record, table))]


def accounting_2026(results: Path) -> Sequence[Table | Drawing]:
    """The same of videos, of models that edit and of what came later (records/accounting_2026); and a row for every
    model of both records."""
    older, newer = (accounts.load(results / record) for record in (ACCOUNTING, ACCOUNTING_2026))
    rows = accounts.models(*((record, accounts.fullest(table)) for record, table in (older, newer)))
    figure = accounting_figure.figure(*newer)
    return [accounts.tabulate(*newer, None), Table(None, markdown(rows), "_models"), Drawing(figure)]


def text_variants(results: Path) -> list[Table]:
    """An MM-DiT's prompt between stages, sent with every patch (exact) or with the first of a step (as published):
    distance to serial, measured on small models, and bytes at full size; records/text."""
    return [texts.tabulate(load_study(results / TEXT))]


OUTPUTS = [
    Output(params_per_device, (PARAMS,), "Section 3, Table 1", "paper_params"),
    Output(accounting, (ACCOUNTING, WHOLE, "published/table1_costs.csv"), "Table 1"),
    Output(accounting_2026, (ACCOUNTING, ACCOUNTING_2026)),
    Output(text_variants, (TEXT,)),
]
