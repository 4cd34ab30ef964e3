"""Methods in print: one name, colour and marker each, the same in every table and figure, and the order they have."""

from __future__ import annotations

from collections.abc import Iterable
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


def ordered(methods: Iterable[str]) -> list[str]:
    """These methods, each once, in the order they always have."""
    found = set(methods)
    return [method for method in ORDER if method in found]


def method_order(values: pd.Series) -> pd.Series:
    """A key to sort by: methods in the order they always have, one we do not know last; other columns by value."""
    places = {method: at for at, method in enumerate(ORDER)}
    return values.map(places).fillna(len(ORDER)) if values.name == "method" else values


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by method in the order methods always have."""
    return rows.sort_values("method", key=method_order, kind="stable", ignore_index=True)
