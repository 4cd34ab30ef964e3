"""Every version of Table 1: its cells as formulas, beside the bytes of a record of `experiment=accounting`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.paper.facts import METHODS
from analysis.rows import Row
from analysis.table1 import CLAIMS, FORMULAS, Units, between
from analysis.versus.beside import Beside, untestable
from analysis.versus.memory import RECORD

OLDER: dict[str, Callable[[Units], float]] = {
    "O(p*hs)": lambda u: u.a,
    "A": lambda u: u.a,
    "A/N": lambda u: u.a / u.n,
    "A/M": lambda u: u.a / u.m,
    "AL": lambda u: u.a * u.layers,
    "(A/M)L": lambda u: u.a / u.m * u.layers,
    "(QO+KV)/N": lambda u: 4 * u.a / u.n,
    "QO/N+KV": lambda u: 2 * u.a / u.n + 2 * u.a,
    "QO/M+KV": lambda u: 2 * u.a / u.m + 2 * u.a,
    "0": lambda _: 0.0,
}
"""The formulas that only earlier versions print."""
COSTS: dict[str, Callable[[Units], float]] = {**FORMULAS, **OLDER}
COUNTED = dict(CLAIMS.values())
"""Column of costs -> our bytes."""
WORDS = {"attn_KV": "K, V attended to", "overlap": "overlap"}
"""The columns of words."""
COLUMNS = [*WORDS, *COUNTED]
NOTHING = ("-", "NA", "")
DEVICES = 8
MAIN = "pixart_alpha"
"""The model whose ratio stands for a cell: the paper's own; all models are said beside it."""


def formula_of(cell: str) -> str | None:
    """The formula of a cell, `(2/N)A=KV/N` being two spellings of one; None where it is none that is known."""
    text = cell.rpartition("=")[2].strip()
    return text if text in COSTS else None


def ratios(record: dict[str, Any], cases: pd.DataFrame, row: Row, column: str) -> pd.DataFrame:
    """The fullest device's bytes over the cell's formula, a row a case: `model`, `ratio`."""
    formula, method = formula_of(row[column]), METHODS[row["method"]]
    found = []
    if formula is not None:
        mine = cases[(cases.status == "ok") & (cases.devices == DEVICES) & (cases.method == method)]
        for case in mine.to_dict("records"):
            cost = COSTS[formula](units_of(record["models"][case["model"]], case))
            if cost:
                found.append({"model": case["model"], "ratio": float(case[COUNTED[column]]) / cost})
    return pd.DataFrame(found, columns=["model", "ratio"])


def units_of(facts: dict[str, Any], case: dict[Any, Any]) -> Units:
    """What the symbols stand for in a case; where a method has no M, it is N."""
    a = facts["tokens"][str(case["resolution"])] * facts["hidden"] * case["branches"]
    a *= facts["param_bytes"] // facts["parameters"]
    m = case["devices"] if pd.isna(case["patches"]) else case["patches"]
    return Units(float(a), facts["param_bytes"], facts["layers"], case["devices"], float(m))


def kept(cases: pd.DataFrame, row: Row, column: str) -> pd.Series:
    """The fullest device's bytes themselves, for a cell that says 0."""
    mine = cases[(cases.status == "ok") & (cases.devices == DEVICES)]
    return mine[(mine.method == METHODS[row["method"]]) & (mine.model == MAIN)][COUNTED[column]]


def beside(record: dict[str, Any], cases: pd.DataFrame, row: Row, column: str) -> Beside:
    """Our bytes over a cell's formula: the median of the main model's sizes, and in words the least and the most."""
    text = row[column]
    formula = formula_of(text)
    if formula is None:
        return untestable(
            f"the version says nothing here ({text})" if text in NOTHING else f"no formula: {text}"
        )
    if formula == "0":
        most = int(kept(cases, row, column).max())
        said = "as printed" if most == 0 else f"unlike printed: up to {most:,} bytes ({MAIN})"
        return Beside(f"{most}", "computed", said, RECORD)
    found = ratios(record, cases, row, column)
    if not found.ratio.max():
        return Beside(
            "0", "computed", "none is kept between steps: K, V at work are among the activations", RECORD
        )
    main = found[found.model == MAIN].ratio
    words = (
        f"counted over printed, N={DEVICES}: {between(main)} ({MAIN}), {between(found.ratio)} (all models)"
    )
    return Beside(float(main.median()), "computed", words, RECORD)
