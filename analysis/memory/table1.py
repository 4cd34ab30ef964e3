"""Table 1 of the paper, the cost of each method in symbols, beside the bytes of a record of `experiment=accounting`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.evidence.published import METHODS, TABLE1, Rows
from analysis.presentation.style import label

VERSION = "README-c"
"""The version of Table 1 that has every column; the paper's own print is the same, without activations."""
READING = (
    "The fullest of {devices} devices, over the formula with p image tokens and all branches: the least and the most "
    "of all sizes. Tensor parallelism is as published: a cross-attention is whole on every device. Sent bytes are the "
    "sender's, each once; Table 1 counts those of PipeFusion at both ends, and "
    "knows neither long skips (HunyuanDiT) nor a prompt that goes along (MM-DiTs). K, V of "
    "the layer at work are among the activations, and so are messages that are still on their way (DistriFusion's own "
    "K, V of all layers). Q and output, which Table 1 counts, are a small part of what is alive at the peak: the MLP's "
    "hidden states and the residual stream are there too. W = 1: the one synchronous step has the whole image as one "
    "patch, and sets PipeFusion's peak; W = 0 is what its overlapping steps need."
)


@dataclass(frozen=True)
class Units:
    """What the symbols of Table 1 stand for in a case: A = p * hs (K, V or Q of a layer) and P in bytes."""

    a: float
    p: float
    layers: int
    n: int
    m: float


FORMULAS: dict[str, Callable[[Units], float]] = {
    "4O(p*hs)L": lambda u: 4 * u.a * u.layers,
    "2O(p*hs)L": lambda u: 2 * u.a * u.layers,
    "(4/N)O(p*hs)L": lambda u: 4 * u.a * u.layers / u.n,
    "2O(p*hs)": lambda u: 2 * u.a,
    "P": lambda u: u.p,
    "P/N": lambda u: u.p / u.n,
    "QO/N": lambda u: 2 * u.a / u.n,
    "QO/M": lambda u: 2 * u.a / u.m,
    "KV/N": lambda u: 2 * u.a / u.n,
    "(KV)L": lambda u: 2 * u.a * u.layers,
    "(KV)L/N": lambda u: 2 * u.a * u.layers / u.n,
}
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
COSTS = {**FORMULAS, **OLDER}
CLAIMS = {
    "sent a step": ("communication_per_timestep", "step_sent_bytes"),
    "parameters": ("param_memory", "param_bytes"),
    "K, V": ("KV_or_buffer_memory", "kv_bytes"),
    "activations": ("activation_memory", "activation_bytes"),
}
"""What Table 1 says something about -> its column there and ours."""


COUNTED = dict(CLAIMS.values())
"""Column of costs -> our bytes."""
COLUMNS = ["attn_KV", "overlap", *COUNTED]
NOTHING = ("-", "NA", "")


def parse_formula(cell: str) -> str | None:
    """The formula of a cell, `(2/N)A=KV/N` being two spellings of one; None where it is none that is known."""
    text = cell.rpartition("=")[2].strip()
    return text if text in COSTS else None


def claims(
    record: dict[str, Any], cases: pd.DataFrame, rows: Rows, devices: int, version: str = VERSION
) -> pd.DataFrame:
    """A version of Table 1 beside what was counted, one row per case and quantity: formula, its bytes, the fullest
    device's.

    Cells without a formula have no row, nor have those that say 0.
    """
    printed = {
        row.method: row
        for row in rows.values()
        if row.row_id.startswith(TABLE1) and row["version"] == version
    }
    found = []
    for case in cases[(cases.status == "ok") & (cases.devices == devices)].to_dict("records"):
        if case["method"] not in printed:
            continue
        symbols, cost = units(record["models"][case["model"]], case), printed[case["method"]]
        for what, (column, ours) in CLAIMS.items():
            formula = parse_formula(cost[column])
            formula_bytes = COSTS[formula](symbols) if formula else 0.0
            if formula_bytes:
                row = {key: case[key] for key in ("model", "resolution", "method", "warmup")}
                row |= {"what": what, "formula": formula, "overlap": cost["overlap"].rstrip("*")}
                row |= {"formula_bytes": formula_bytes, "counted_bytes": case[ours]}
                found.append(row | {"ratio": case[ours] / formula_bytes})
    return pd.DataFrame(found)


def units(facts: dict[str, Any], case: dict[Any, Any]) -> Units:
    """What the symbols stand for in a case; where a method has no M, it is N."""
    a = facts["tokens"][str(case["resolution"])] * facts["hidden"] * case["branches"]
    a *= facts["param_bytes"] // facts["parameters"]
    m = case["devices"] if pd.isna(case["patches"]) else case["patches"]
    return Units(float(a), facts["param_bytes"], facts["layers"], case["devices"], float(m))


def readable(found: pd.DataFrame) -> pd.DataFrame:
    """Counted over printed: of the first model and of all, the least and the most of any case."""
    first, cells = found.model.iloc[0], []
    for what in CLAIMS:
        for method in METHODS.values():
            mine = found[(found.what == what) & (found.method == method)]
            warmups = [*mine.warmup.drop_duplicates()]
            # Another warm-up changes nothing but the activations.
            for warmup in warmups if what == "activations" else warmups[:1]:
                part = mine[mine.warmup.isna() if pd.isna(warmup) else mine.warmup == warmup]
                name = label(method) + ("" if pd.isna(warmup) else f", W={warmup:.0f}")
                ratios = [between(part.ratio[part.model == first]), between(part.ratio)]
                cells.append((name, what, part.formula.iloc[0], *ratios))
    return pd.DataFrame(
        cells, columns=["method", "what", "Table 1", f"counted / Table 1, {first}", "all models"]
    )


def between(ratios: pd.Series) -> str:
    """`1.31`, or `0.87 to 1.31`; nothing kept, or no case, in words."""
    if ratios.empty:
        return "–"
    if not ratios.max():
        return "none kept"
    ends = [f"{end:.2f}" if end < 100 else f"{end:.0f}" for end in (ratios.min(), ratios.max())]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
