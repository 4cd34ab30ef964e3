"""The predictions of published latencies with what the figures of the paper need: model, steps, the printed W."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pandas as pd

from analysis import published
from analysis.paper.facts import stated

SOURCE = "records/published/predictions.json"
ROWS = "published/*.csv"


def load(results: Path) -> pd.DataFrame:
    """`published.joined` with `model`, `steps` and `printed_warmup`, the W of the source, which may be one less than
    the synchronous steps that it ran (`warmup`)."""
    predictions = published.load(results / SOURCE)
    table = published.joined(predictions, results / "published")
    printed = [stated("W", setting) for setting in table.setting]
    facts = {key: [one[key] for one in predictions] for key in ("model", "steps")}
    return table.assign(**facts, printed_warmup=pd.array(printed, dtype="Int64"))


def serial_s(table: pd.DataFrame, cluster: str, resolution: int, model: str) -> float:
    """The least seconds that one device of a cluster was published with; NaN without any."""
    alone = table[(table.method == "serial") & (table.cluster == cluster)]
    alone = alone[(alone.resolution == resolution) & (alone.model == model)]
    return float(alone.published_s.min())


def bound_s(alone_s: float, devices: int, patches: int, steps: int, warmup: int) -> float:
    """The least seconds that PipeFusion's schedule allows, if messages and small patches cost nothing and all stages
    are equal: W steps as slow as on one device, then jobs of 1/(MN) of a step.

    While M < N a step takes N jobs' time instead of M: a patch is back from the last stage only then.
    """
    after = steps - warmup
    jobs = (after - 1) * max(patches, devices) + patches + devices - 1 if after else 0
    return alone_s / steps * (warmup + jobs / (patches * devices))


def named(row_ids: Iterable[str]) -> str:
    """`latency.csv 2–5, 9; warmup.csv 3` of `latency.csv:2` and so on."""
    parts: dict[str, set[int]] = {}
    for row_id in row_ids:
        file, _, line = row_id.partition(":")
        parts.setdefault(file, set()).add(int(line))
    said = []
    for file, lines in sorted(parts.items()):
        runs = []
        for _, run in groupby(enumerate(sorted(lines)), key=lambda pair: pair[1] - pair[0]):
            ends = [line for _, line in run]
            runs.append(str(ends[0]) if len(ends) == 1 else f"{ends[0]}–{ends[-1]}")
        said.append(f"{file} {', '.join(runs)}")
    return "; ".join(said)
