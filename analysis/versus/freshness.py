"""Table 1's words `fresh` and `stale` beside what the methods attended to in runs of a small model."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.staleness import tables
from analysis.versus.beside import Beside, untestable

RECORD = "records/staleness"


def load(results: Path) -> pd.DataFrame:
    """One row a method: N, and over all steps but the synchronous ones the share of K, V that is of the step itself."""
    table = tables.load(results / RECORD).freshness
    table = table[(table.devices > 1) & (table.step >= table.warmup.fillna(0))]
    sums = table.groupby("method")[["age_0", "tokens"]].sum()
    return sums.assign(fresh=sums.age_0 / sums.tokens)


def beside(word: str, method: str, measured: pd.DataFrame) -> Beside:
    """`fresh` or `stale` as measured; `stale-`, as is printed for PipeFusion, is stale and less so."""
    if word not in ("fresh", "stale", "stale-"):
        return untestable(f"the version says nothing here ({word})")
    if method not in measured.index:
        return untestable(f"{method} is not in {RECORD}")
    share = float(measured.fresh[method])
    ours = "fresh" if share == 1 else "stale"
    agrees = "as printed" if word.startswith(ours) else "unlike printed"
    return Beside(ours, "measured", f"{100 * share:.0f} % of K, V are of the same step, {agrees}", RECORD)
