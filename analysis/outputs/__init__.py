"""Every committed table and figure, a row each; a module holds the functions of one subject beside their rows."""

from __future__ import annotations

from analysis.output import Output
from analysis.outputs import (
    cpu,
    evidence,
    exact,
    paper,
    paper_more,
    predicted,
    products,
    quality,
    quickstart,
    staleness,
)

OUTPUTS: list[Output] = [
    *evidence.OUTPUTS,
    *quickstart.OUTPUTS,
    *products.OUTPUTS,
    *exact.OUTPUTS,
    *predicted.OUTPUTS,
    *paper.OUTPUTS,
    *paper_more.OUTPUTS,
    *quality.OUTPUTS,
    *staleness.OUTPUTS,
    *cpu.OUTPUTS,
]
