"""Every committed table and figure, a row each; a module holds the functions of one subject beside their rows."""

from __future__ import annotations

from analysis.output import Output
from analysis.outputs import (
    cpu,
    distance,
    evidence,
    exact,
    methods,
    paper,
    paper_more,
    planned,
    predicted,
    products,
    quality,
    quickstart,
    staleness,
)

SUBJECTS = (
    evidence,
    quickstart,
    products,
    exact,
    predicted,
    planned,
    paper,
    paper_more,
    quality,
    staleness,
    distance,
    methods,
    cpu,
)
OUTPUTS: list[Output] = [output for subject in SUBJECTS for output in subject.OUTPUTS]
