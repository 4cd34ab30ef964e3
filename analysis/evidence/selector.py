"""Predictions judged as a selector: is the setting that they call the fastest the one that was measured as the fastest?

A group is what one source measured on the same hardware with one model, size, N, S and W: the settings that somebody
could choose between. Regret is what the choice costs: its measured seconds over the least of the group, minus one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.evidence import predictions
from analysis.evidence.predictions import Fitted
from analysis.evidence.published import WARMUP, Rows, read
from analysis.presentation import tables
from analysis.presentation.columns import Shown, counts, percent, seconds, shares, texts, words
from analysis.presentation.style import label
from analysis.presentation.tables import Table
from analysis.records.committed import PREDICTIONS

GROUP = ["source", "cluster", "model", "resolution", "devices", "steps"]
APART = "sources of no calibration row"
"""Groups whose source gave no row that their cluster was fitted on: what is left when a source is left out."""


def options(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that one may choose between: predictions at the default W, out of memory counted as endless seconds.

    A row in doubt is none: regret over a number that cannot be right says nothing.
    """
    rows = predictions.memory_rows(table)
    rows = rows[(rows.devices > 1) & (rows.doubt == "") & rows.printed_warmup.fillna(WARMUP).eq(WARMUP)]
    return rows.assign(
        measured=rows.published_s.where(~rows.published_oom, inf),
        foretold=rows.predicted_s.where(~rows.predicted_oom, inf),
    )


def load(results: Path) -> pd.DataFrame:
    """The groups of the committed predictions and published rows."""
    made, folder = predictions.load(results / PREDICTIONS), results / "published"
    fitted: Fitted = {}
    for one in made:
        fitted.setdefault(one["cluster"], set()).update(one["calibrated_on"])
    return groups(predictions.joined(made, folder), read(folder), fitted)


def groups(table: pd.DataFrame, rows: Rows, fitted: Fitted) -> pd.DataFrame:
    """One row a group of two settings and more: what is chosen, what was the fastest, and the regret.

    `table` as `predictions.joined` has it; `fitted`: cluster -> the rows that its profile was fitted on. A group of
    nothing but numbers that another source prints is left out.
    """
    found = []
    for _, part in options(table).groupby(GROUP, sort=False):
        if len(part) < 2 or part.duplicate_of.notna().all():
            continue
        each = part.to_dict("records")
        best, chosen = (min(each, key=lambda row: row[key]) for key in ("measured", "foretold"))
        origins = {rows[row_id]["source"] for row_id in fitted.get(chosen["cluster"], ())}
        found.append(
            {name: best[name] for name in GROUP}
            | {
                "kind": "methods" if part.method.nunique() > 1 else "M",
                "settings": len(part),
                "chosen": setting(chosen),
                "fastest_setting": setting(best),
                "chosen_s": chosen["measured"],
                "fastest_s": best["measured"],
                "regret": chosen["measured"] / best["measured"] - 1,
                "random_regret": (part.measured / best["measured"] - 1).replace(inf, pd.NA).mean(),
                "apart": best["source"] not in origins,
                "chosen_row": chosen["row_id"],
                "fastest_row": best["row_id"],
            }
        )
    return pd.DataFrame(found)


def setting(row: Mapping[Any, Any]) -> str:
    """`PipeFusion M=8`."""
    return label(row["method"]) + (f" M={int(row['patches'])}" if pd.notna(row["patches"]) else "")


def summary(found: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Hit rate and regret of all groups, of each kind, and of those whose source calibrated nothing."""
    parts = {"all groups": found, APART: found[found.apart]}
    parts |= {f"which {kind}": part for kind, part in found.groupby("kind", sort=False)}
    for name, part in parts.items():
        fits = part[part.regret < inf]
        yield {
            "groups": name,
            "count": len(part),
            "hits": int((part.regret == 0).sum()),
            "hit_rate": (part.regret == 0).mean(),
            "random_hit_rate": (1 / part.settings).mean(),
            "mean_regret": fits.regret.mean(),
            "random_regret": fits.random_regret.mean(),
            "worst_regret": fits.regret.max(),
            "out_of_memory": len(part) - len(fits),
        }


def tabulate(found: pd.DataFrame) -> list[Table]:
    """The summary, the groups, and the summary in one line."""
    lines = pd.DataFrame(summary(found))
    columns: Shown = [
        *texts(groups="of"),
        *counts(count="groups", hits="hits"),
        *shares(hit_rate="hit rate", random_hit_rate="hit rate at random", mean_regret="mean regret"),
        *shares(random_regret="mean regret at random", worst_regret="worst regret"),
        *counts(out_of_memory="chosen ran out of memory"),
    ]
    beside: Shown = [
        *("cluster", "model", "resolution", "devices"),
        *counts(settings="settings"),
        *texts(chosen="predicted fastest", fastest_setting="measured fastest"),
        *seconds(chosen_s="of the predicted", fastest_s="of the fastest"),
        *texts(cost="regret", source="source"),
    ]
    shown = found.assign(cost=[percent(one) if one < inf else "OOM" for one in found.regret])
    return [
        tables.table(lines, words(lines, columns)),
        tables.table(found, words(shown, beside))._replace(suffix="_groups"),
        Table(None, f"{sentence(found)}\n", "_line"),
    ]


def sentence(found: pd.DataFrame) -> str:
    """How good the choice is, in one line."""
    whole, apart, *_ = summary(found)
    random, costs = percent(whole["random_hit_rate"]), percent(whole["mean_regret"])
    return (
        f"The setting predicted as the fastest is the fastest published one in {whole['hits']} of {whole['count']} "
        f"groups of the same source, hardware, model, size and N ({percent(whole['hit_rate'])}; at random {random}); "
        f"its published seconds are {costs} above the least on average, {percent(whole['worst_regret'])} at worst. "
        f"Where the source calibrated nothing: {apart['hits']} of {apart['count']}, {percent(apart['mean_regret'])}."
    )
