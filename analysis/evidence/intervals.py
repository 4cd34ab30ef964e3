"""Intervals of predicted seconds, from the errors of predictions of the same kind on rows that were not fitted.

A kind is a family of methods, small or large pictures, and a link. Where fewer than `LEAST` rows are of one kind, those
of the family and size are taken, then those of the family, then all. Errors are ln(published / predicted), and the
interval between their quantiles is widened about the median until it holds `SHARE` of the rows of a source that it was
made without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.evidence.predictions import LARGE, cuts, load_joined, scored

SHARE = 0.8
"""Of the rows that an interval is to hold."""
LEAST = 8
FAMILIES = {
    "serial": "one device",
    "tensor": "tensor",
    **dict.fromkeys(("ulysses", "ring", "USP"), "sequence"),
    **dict.fromkeys(("distrifusion", "naive_patch", "pcpp"), "displaced patches"),
    **dict.fromkeys(("pipefusion", "sync_pipeline", "hybrid"), "pipeline"),
}
LINKS = ("ethernet", "infiniband", "nvlink", "pcie")
WIDENINGS = np.linspace(0.5, 3.0, 51)

Kind = tuple[str, str, str]


class Error(NamedTuple):
    """ln(published / predicted) of one row."""

    kind: Kind
    source: str
    value: float
    borrowed: bool = False  # of a cluster whose device or link has no published row of its own


def kind(method: str, resolution: int, cluster: str) -> Kind:
    """Family, size and link of a run; `method` may be a product's, `hybrid` or `USP`."""
    family = FAMILIES.get(method, method)
    link = next((link for link in LINKS if link in cluster), "") if family != "one device" else ""
    small = pd.notna(resolution) and resolution < LARGE  # a video has none, and is large
    return family, "small" if small else "large", link


def read_errors(table: pd.DataFrame) -> list[Error]:
    """Each number once, not in doubt and not fitted, of a table as `predictions.joined` makes it."""
    rows = cuts(scored(table))["once"]
    values = -np.log1p(rows.error)
    kinds = map(kind, rows.method, rows.resolution, rows.cluster)
    return [Error(*one) for one in zip(kinds, rows.source, values, rows.borrowed != "", strict=True)]


def alike(errors: Sequence[Error], of: Kind) -> np.ndarray:
    """The errors of the narrowest kind that has enough of them; of all where none has."""
    for known in (3, 2, 1):
        found = [error.value for error in errors if error.kind[:known] == of[:known]]
        if len(found) >= LEAST:
            return np.array(found)
    return np.array([error.value for error in errors])


def quantiles(values: np.ndarray) -> np.ndarray:
    """The ends and the middle of what holds `SHARE` of a next value of the same kind."""
    ends = [(1 - SHARE) / 2, 0.5, (1 + SHARE) / 2]
    found: np.ndarray = np.quantile(
        values, ends, method="weibull"
    )  # of n + 1 places, as in conformal prediction
    return found


def apart(errors: Sequence[Error]) -> list[tuple[Error, np.ndarray]]:
    """Each error, with the quantiles of the others of its kind that are from other sources."""
    pairs = []
    for source in dict.fromkeys(error.source for error in errors):
        others, ends = [error for error in errors if error.source != source], {}
        for error in errors:
            if error.source == source and others:
                if error.kind not in ends:
                    ends[error.kind] = quantiles(alike(others, error.kind))
                pairs.append((error, ends[error.kind]))
    return pairs


def held(pairs: Sequence[tuple[Error, np.ndarray]], widening: float) -> list[bool]:
    """Which errors lie in the interval that was made without their source."""
    return [
        middle - widening * (middle - low) <= error.value <= middle + widening * (high - middle)
        for error, (low, middle, high) in pairs
    ]


def widening(every: Sequence[tuple[Error, np.ndarray]], borrowed: bool) -> float:
    """The least of `WIDENINGS` with which `SHARE` of the errors are held, each without its source; or the largest.

    Of clusters that borrow, or of the others, where there are enough of these; of all where not.
    """
    some = [pair for pair in every if pair[0].borrowed == borrowed]
    pairs = some if len(some) >= LEAST else every
    enough = (float(one) for one in WIDENINGS if pairs and np.mean(held(pairs, one)) >= SHARE)
    return next(enough, float(WIDENINGS[-1]))


@dataclass(frozen=True)
class Intervals:
    """What intervals are made of."""

    errors: Sequence[Error]
    widening: float
    widening_borrowed: float

    def around(
        self, seconds: float, method: str, resolution: int, cluster: str, borrowed: bool = False
    ) -> tuple[float, float]:
        """The interval of predicted seconds: where predictions of the kind are biased it lies to one side of them.

        `borrowed`: the cluster's device or link has no published row of its own.
        """
        wider = self.widening_borrowed if borrowed else self.widening
        low, middle, high = quantiles(alike(self.errors, kind(method, resolution, cluster)))
        down, up = middle - wider * (middle - low), middle + wider * (high - middle)
        return seconds * exp(down), seconds * exp(up)


def intervals(table: pd.DataFrame) -> Intervals:
    """Made from the predictions of a table. Raises ValueError where none of them has an error."""
    errors = read_errors(table)
    if not errors:
        raise ValueError("no prediction has an error to make intervals of")
    return from_errors(errors)


def from_errors(errors: Sequence[Error]) -> Intervals:
    """Intervals as wide as the errors ask for; those of clusters that borrow no less wide than the others."""
    every = apart(errors)
    own = widening(every, borrowed=False)
    return Intervals(errors, own, max(own, widening(every, borrowed=True)))


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `low_s` and `high_s` of each prediction, made without the rows of its own source."""
    errors, ends = read_errors(table), []
    made: dict[str, Intervals | None] = {}
    for row in table.to_dict("records"):
        source, seconds = row["source"], row["predicted_s"]
        if source not in made:
            others = [error for error in errors if error.source != source]
            made[source] = from_errors(others) if others else None
        found = made[source]
        if found is None or not seconds > 0:
            ends.append((np.nan, np.nan))
        else:
            run = row["method"], row["resolution"], row["cluster"], bool(row["borrowed"])
            ends.append(found.around(seconds, *run))
    low, high = zip(*ends, strict=True)
    return table.assign(low_s=low, high_s=high)


def coverage_text(table: pd.DataFrame) -> str:
    """How often intervals hold what they were made without, in a sentence."""
    holds = [hold for _, hold in coverage(read_errors(table))]
    return (
        f"Intervals of {SHARE:.0%}, each made without the rows of a source, hold {sum(holds)} of its {len(holds)} "
        f"(each number once, other people's code and compiled models included)."
    )


def load_intervals(results: Path) -> Intervals:
    """Made from the committed predictions. Raises OSError and ValueError."""
    return intervals(load_joined(results))


def coverage(errors: Sequence[Error]) -> Iterator[tuple[Error, bool]]:
    """Each error, and whether the interval holds it that is made, widening included, without its source."""
    every = apart(errors)
    for source in dict.fromkeys(error.source for error in errors):
        others = apart([error for error in errors if error.source != source])
        for borrowed in (False, True):
            mine = [one for one in every if one[0].source == source and one[0].borrowed == borrowed]
            if mine:
                yield from zip(
                    [error for error, _ in mine], held(mine, widening(others, borrowed)), strict=True
                )
