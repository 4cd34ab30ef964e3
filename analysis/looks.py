"""Methods in print: one name, colour and marker each, the same in every table and figure, and the order they have."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd


class Look(NamedTuple):
    """A method as it is written and drawn."""

    label: str
    colour: str
    marker: str


LOOKS = {
    "serial": Look("Serial", "#000000", "o"),
    "sync_pipeline": Look("Sync pipeline", "#56B4E9", "v"),
    "tensor": Look("Tensor parallel", "#E69F00", "s"),
    "ulysses": Look("Ulysses", "#009E73", "D"),
    "ring": Look("Ring", "#B8A800", "P"),
    "naive_patch": Look("Naive patch", "#7F7F7F", "x"),
    "asyncdiff": Look("AsyncDiff", "#882255", "h"),
    "parastep": Look("ParaStep", "#332288", "d"),
    "pcpp": Look("PCPP", "#CC79A7", "p"),
    "distrifusion": Look("DistriFusion", "#0072B2", "^"),
    "pipefusion": Look("PipeFusion", "#D55E00", "*"),
}
"""One line a method, in the order of all tables and figures; experiments/methods.py has the same methods."""
ORDER = [*LOOKS]
COLOUR = {method: look.colour for method, look in LOOKS.items()}
MARKER = {method: look.marker for method, look in LOOKS.items()}
LABEL = {method: look.label for method, look in LOOKS.items()}


def label(method: str) -> str:
    """A method's name as written in figures and tables."""
    return LABEL.get(method, method)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order methods always have; one we do not know comes last."""
    place = {method: at for at, method in enumerate(ORDER)}
    return rows.sort_values(
        "method", key=lambda names: names.map(place).fillna(len(ORDER)), kind="stable"
    ).reset_index(drop=True)
